"""Models with a training step of their own."""

from keras_ext.training.cached_contrastive_model import CachedContrastiveModel

__all__ = ["CachedContrastiveModel"]
