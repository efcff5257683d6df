"""Callbacks for `model.fit`."""

from keras_ext.callbacks.compile_counter import CompileCounter
from keras_ext.callbacks.keep_freed_memory import KeepFreedMemory
from keras_ext.callbacks.optimizer_monitor import OptimizerMonitor

__all__ = [
    "CompileCounter",
    "KeepFreedMemory",
    "OptimizerMonitor",
]
