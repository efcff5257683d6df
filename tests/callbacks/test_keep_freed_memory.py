import platform
import resource

import child
import keras
import numpy as np
import pytest

from keras_ext.callbacks import KeepFreedMemory


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return np.ones((4096, 64), "float32"), np.ones((4096, 1), "float32")


def faults(kept):
    """Trains a model whose activations are some MB.

    Returns:
        The page faults of the last two of four epochs.
    """
    counted = []
    count = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: counted.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    )
    layers = [keras.layers.Dense(64, activation="elu") for _ in range(4)]
    model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    callbacks = [count, KeepFreedMemory()] if kept else [count]
    model.fit(Batches(), epochs=4, verbose=0, callbacks=callbacks)
    return counted[3] - counted[1]


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or platform.libc_ver()[0] != "glibc",
    reason="TensorFlow's use of glibc",
)
def test_a_step_uses_the_memory_that_the_last_one_freed():
    with child.start(TF_ENABLE_ONEDNN_OPTS="0") as run:  # where nothing has set the thresholds
        name = "callbacks.test_keep_freed_memory.faults"
        plain, kept = (run(name, kept=kept) for kept in (False, True))
    assert plain > 10_000  # else TensorFlow has changed, and the callback may go
    assert kept < plain / 4


def test_nothing_is_done_where_it_does_not_apply(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    callback = KeepFreedMemory()
    assert callback._libc is None
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(np.ones((4, 2)), np.ones((4, 1)), callbacks=[callback], verbose=0)
    assert np.isfinite(history.history["loss"]).all()


class Library:
    """Notes what glibc is asked."""

    def __init__(self):
        self.calls = []

    def mallopt(self, threshold, size):
        self.calls.append((threshold, size))

    def malloc_trim(self, pad):
        self.calls.append("trim")


def test_thresholds_are_put_back_before_each_batch_and_memory_is_given_back_at_the_end():
    callback = KeepFreedMemory()
    callback._libc = Library()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((6, 2)), np.ones((6, 1)), 2, epochs=2, callbacks=[callback], verbose=0)
    assert callback._libc.calls == 6 * [(-3, 32 * 2**20), (-1, 64 * 2**20)] + ["trim"]
