import json
import os
import platform
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_ext.callbacks import KeepFreedMemory

# Trains a model whose activations are some MB, and prints the page faults of each epoch.
PROGRAM = """
import json, resource, sys
import keras, numpy as np
from keras_ext.callbacks import KeepFreedMemory

class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return np.ones((256, 1024), "float32"), np.ones((256, 1), "float32")

faults = []

def count(epoch, logs):
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)

layers = [keras.layers.Dense(1024, activation="elu") for _ in range(4)]
model = keras.Sequential([keras.Input((1024,)), *layers, keras.layers.Dense(1)])
model.compile("adam", "mse")
callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=count)]
callbacks += [KeepFreedMemory()] * (sys.argv[1] == "kept")
model.fit(Batches(), epochs=4, verbose=0, callbacks=callbacks)
print(json.dumps(faults))
"""


def faults(how):
    """Page faults of the last two of four epochs."""
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
    child = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, env=environment
    )
    assert child.returncode == 0, child.stderr
    counted = json.loads(child.stdout.splitlines()[-1])
    return counted[3] - counted[1]


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or platform.libc_ver()[0] != "glibc",
    reason="TensorFlow's use of glibc",
)
def test_a_step_uses_the_memory_that_the_last_one_freed():
    plain, kept = faults("plain"), faults("kept")
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
