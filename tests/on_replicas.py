"""Runs cases on two replicas, in a process of its own: devices are set before TensorFlow starts.

    python on_replicas.py

Each line of the input is a JSON list: "module.function", of this folder or of `optimizers`, and a
dict of arguments.
The function is called with the strategy and the arguments. What it returns is printed as a line of
JSON, or, if it raises, `{"raised": traceback}`.
"""

import contextlib
import json
import sys
import traceback
from importlib import import_module
from pathlib import Path

import tensorflow as tf

import keras_ext  # noqa: F401, makes its objects known


def two_replicas():
    """A strategy with two replicas on the processor."""
    (device,) = tf.config.list_physical_devices("CPU")
    halves = [tf.config.LogicalDeviceConfiguration(), tf.config.LogicalDeviceConfiguration()]
    tf.config.set_logical_device_configuration(device, halves)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def outcome(strategy, name, arguments):
    """What a case returns, or the error that it raises."""
    module, _, function = name.rpartition(".")
    try:
        return {"returned": getattr(import_module(module), function)(strategy, **arguments)}
    except Exception:
        return {"raised": traceback.format_exc()}


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parent / "optimizers"))
    strategy = two_replicas()
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            answer = outcome(strategy, *json.loads(line))
        print(json.dumps(answer), flush=True)
