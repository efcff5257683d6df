"""Models with a training step of their own."""

from keras_ext.training.autoencoder_vq import AutoencoderVQ
from keras_ext.training.cached_contrastive_model import CachedContrastiveModel
from keras_ext.training.self_pretrainer import SelfPretrainer

__all__ = ["AutoencoderVQ", "CachedContrastiveModel", "SelfPretrainer"]
