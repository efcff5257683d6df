import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_ext.callbacks import CompileCounter
from keras_ext.data import Window
from keras_ext.entities.decoding import window_batches

TESTS = Path(__file__).parents[1]


class Batches(keras.utils.PyDataset):
    """Token ids of the given lengths, one number as the label of a text."""

    def __init__(self, lengths, rows=2, buckets=(4, 8), **kwargs):
        super().__init__(**kwargs)
        self.lengths = lengths
        self.rows = rows
        self.buckets = buckets
        self.calls = []

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        shape = self.rows, self.lengths[index]
        return {"ids": np.ones(shape, "int32")}, np.ones((self.rows, 1), "float32")

    def on_epoch_begin(self):
        self.calls.append("begin")

    def on_epoch_end(self):
        self.calls.append("end")


def tiny_model(jit_compile=True):
    """A mean of embeddings and a weight: any length, output (b, 1)."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(3, 2)(ids))
    model = keras.Model({"ids": ids}, keras.layers.Dense(1)(x))
    model.compile("sgd", "mse", jit_compile=jit_compile)
    return model


def train(model, counter, data):
    """One epoch; the compilations in its log."""
    data = counter.watch(data)
    history = model.fit(data, verbose=0, shuffle=False, callbacks=[counter])
    return history.history["compilations"][-1]


# What the child process runs: all three steps, old and new shapes.
PROGRAM = """
from callbacks.test_compile_counter import Batches, CompileCounter, json, tiny_model

model, counter = tiny_model(), CompileCounter(expected=3)
watch, silent = counter.watch, {"verbose": 0, "callbacks": [counter]}
data, held_out = Batches([4, 8, 4, 12, 8, 12]), Batches([4, 8])
model.fit(watch(data), validation_data=watch(held_out, "test"), epochs=2, shuffle=False, **silent)
model.fit(watch(Batches([8, 4, 12])), shuffle=False, **silent)
model.evaluate(watch(Batches([4, 16, 8, 4]), "test"), **silent)
model.predict(watch(Batches([8, 4, 8, 4]), "predict"), **silent)
print(json.dumps(counter.counts))
"""


@pytest.mark.slow
def test_the_count_is_that_of_the_programs_which_the_compiler_writes_out(tmp_path):
    flags = f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text"
    printed = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout
    assert json.loads(printed.splitlines()[-1]) == {"train": 3, "test": 3, "predict": 2}
    # TensorFlow calls the program of any step one_step_on_data, JAX train_step and so on.
    assert len(list(tmp_path.glob("*_step*before_optimizations.txt"))) == 8


def test_each_shape_counts_once_and_one_too_many_warns():
    model, counter = tiny_model(), CompileCounter()
    assert train(model, counter, Batches([4, 8, 8, 4])) == 2
    assert train(model, counter, Batches([8, 4])) == 2
    with pytest.warns(UserWarning, match=r"train step is compiled 3 times, expected at most 2.*9"):
        assert train(model, counter, Batches([4, 9])) == 3
    assert train(model, counter, Batches([9, 8, 4])) == 3  # warned of once
    with pytest.warns(UserWarning, match=r"4 times.*\(1, 8\)"):  # a short last batch
        train(model, counter, Batches([8], rows=1))
    assert counter.counts == {"train": 4, "test": 0, "predict": 0}


def test_the_steps_are_counted_apart():
    model, counter = tiny_model(), CompileCounter(expected=1)
    assert train(model, counter, Batches([4, 4])) == 1
    held_out = counter.watch(Batches([4, 8]), "test")
    with pytest.warns(UserWarning, match="test step is compiled 2 times, expected at most 1"):
        model.evaluate(held_out, verbose=0, callbacks=[counter])
    model.predict(counter.watch(Batches([8]), "predict"), verbose=0, callbacks=[counter])
    assert counter.counts == {"train": 1, "test": 2, "predict": 1}


def test_without_xla_nothing_is_compiled():
    counter = CompileCounter(expected=1)
    assert train(tiny_model(jit_compile=False), counter, Batches([4, 8])) == 0


def test_without_an_expectation_it_only_counts():
    model, counter = tiny_model(), CompileCounter()
    assert counter.counts == {"train": 0, "test": 0, "predict": 0}
    assert train(model, counter, Batches([4, 8], buckets=())) == 2


def test_watched_data_are_the_same_data():
    data = Batches([4, 8, 4], workers=2, max_queue_size=3)
    watched = CompileCounter().watch(data)
    assert len(watched) == watched.num_batches == 3
    assert (watched.workers, watched.max_queue_size) == (2, 3)
    for batch, expected in zip(watched, data, strict=True):
        keras.tree.map_structure(np.testing.assert_array_equal, batch, expected)
    watched.on_epoch_begin(), watched.on_epoch_end()
    assert data.calls == ["begin", "end"]


def test_the_batches_of_the_recogniser_keep_to_their_buckets():
    lengths = np.random.default_rng(0).integers(3, 60, 100)
    windows = [Window(0, 0, np.ones(n, "int64"), np.zeros((n, 2), "int64")) for n in lengths]
    data = window_batches(windows, None, batch_size=8, max_length=64, pad_id=0, seed=0)
    counter = CompileCounter()
    counter.set_model(tiny_model())
    watched = counter.watch(data)
    for _ in range(3):  # each shuffled in its own way
        list(watched)
        watched.on_epoch_end()
    assert counter.counts["train"] == len({length for length, _ in data.batches})
    assert counter.counts["train"] <= len(data.buckets)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: CompileCounter(expected=0), "at least once.*expected=0"),
        (lambda: CompileCounter().watch([1, 2]), r"PyDataset.*data=\[1, 2\]"),
        (
            lambda: CompileCounter().watch(Batches([4], use_multiprocessing=True)),
            "in this process.*use_multiprocessing=True",
        ),
        (lambda: CompileCounter().watch(Batches([4]), "training"), "step='training'"),
    ],
)
def test_bad_input(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
