"""Encoders, and the networks of diffusion."""

from keras_ext.models.albert import AlbertEncoder
from keras_ext.models.albert_unshared import AlbertUnsharedEncoder
from keras_ext.models.bert import BertEncoder
from keras_ext.models.bigram_roformer import BigramRoFormerEncoder
from keras_ext.models.electra import ElectraEncoder
from keras_ext.models.gau import GAUEncoder
from keras_ext.models.gau_alpha import GAUAlphaEncoder
from keras_ext.models.mlp_denoiser import MLPDenoiser
from keras_ext.models.nezha import NezhaEncoder
from keras_ext.models.roformer import RoFormerEncoder
from keras_ext.models.roformer_v2 import RoFormerV2Encoder
from keras_ext.models.unet import UNet
from keras_ext.models.vq_transformer import VQTransformer

__all__ = [
    "AlbertEncoder",
    "AlbertUnsharedEncoder",
    "BertEncoder",
    "BigramRoFormerEncoder",
    "ElectraEncoder",
    "GAUAlphaEncoder",
    "GAUEncoder",
    "MLPDenoiser",
    "NezhaEncoder",
    "RoFormerEncoder",
    "RoFormerV2Encoder",
    "UNet",
    "VQTransformer",
]
