"""Around `fit`: precision, compilations."""

from keras_ext.training.cached_contrastive_model import CachedContrastiveModel
from keras_ext.training.compile_counter import CompileCounter
from keras_ext.training.keep_freed_memory import KeepFreedMemory
from keras_ext.training.optimizer_monitor import OptimizerMonitor
from keras_ext.training.recommended_policy import recommended_policy

__all__ = [
    "CachedContrastiveModel",
    "CompileCounter",
    "KeepFreedMemory",
    "OptimizerMonitor",
    "recommended_policy",
]
