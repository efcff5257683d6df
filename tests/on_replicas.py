"""Runs cases on two replicas, in a process of its own: devices are set before TensorFlow starts."""

import functools
import sys
from importlib import import_module
from pathlib import Path

import tensorflow as tf

import keras_ext  # noqa: F401, makes its objects known


@functools.cache
def two_replicas():
    """A strategy with two replicas on the processor."""
    (device,) = tf.config.list_physical_devices("CPU")
    halves = [tf.config.LogicalDeviceConfiguration(), tf.config.LogicalDeviceConfiguration()]
    tf.config.set_logical_device_configuration(device, halves)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def run(name, arguments):
    """Calls "module.function", of this folder or of `optimizers`, with strategy and arguments."""
    folder = str(Path(__file__).parent / "optimizers")
    if folder not in sys.path:
        sys.path.append(folder)
    module, _, function = name.rpartition(".")
    return getattr(import_module(module), function)(two_replicas(), **arguments)
