"""Models with a training step of their own."""

from keras_ext.training.cached_contrastive_model import CachedContrastiveModel
from keras_ext.training.recommended_policy import recommended_policy

__all__ = [
    "CachedContrastiveModel",
    "recommended_policy",
]
