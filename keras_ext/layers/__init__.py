"""Layers, one class a file."""

from keras_ext.layers.attach_mask import AttachMask
from keras_ext.layers.attention_mask import AttentionMask
from keras_ext.layers.bigram_embedding import BigramEmbedding
from keras_ext.layers.composed_embedding import ComposedEmbedding
from keras_ext.layers.deepnorm_residual import DeepNormResidual
from keras_ext.layers.drop_token import DropToken
from keras_ext.layers.efficient_global_pointer import EfficientGlobalPointer
from keras_ext.layers.feed_forward import FeedForward
from keras_ext.layers.fold_mlm_mask_embedding import fold_mlm_mask_embedding
from keras_ext.layers.fsq import FSQ
from keras_ext.layers.gated_attention_unit import GatedAttentionUnit
from keras_ext.layers.global_pointer import GlobalPointer
from keras_ext.layers.group_norm import GroupNorm
from keras_ext.layers.layer_norm import LayerNorm
from keras_ext.layers.learnable_temperature import LearnableTemperature
from keras_ext.layers.local_attention_mask import LocalAttentionMask
from keras_ext.layers.mask_tokens import MaskTokens
from keras_ext.layers.minimal_gru import MinimalGRU
from keras_ext.layers.mixed_chunk_attention import MixedChunkAttention
from keras_ext.layers.multi_head_self_attention import MultiHeadSelfAttention
from keras_ext.layers.ntk_dense import NTKDense
from keras_ext.layers.padding_mask import PaddingMask
from keras_ext.layers.pair_classifier import PairClassifier
from keras_ext.layers.pair_score import PairScore
from keras_ext.layers.parallel_rnn import ParallelRNN
from keras_ext.layers.pooling import Pooling
from keras_ext.layers.position_embedding import PositionEmbedding
from keras_ext.layers.ramped_residual import RampedResidual
from keras_ext.layers.random_positions import RandomPositions
from keras_ext.layers.relative_position_embedding import RelativePositionEmbedding
from keras_ext.layers.residual_quantizer import ResidualQuantizer
from keras_ext.layers.rms_norm import RMSNorm
from keras_ext.layers.sau import SAU
from keras_ext.layers.scale_norm import ScaleNorm
from keras_ext.layers.scale_offset import ScaleOffset
from keras_ext.layers.scanned_blocks import ScannedBlocks
from keras_ext.layers.sinusoidal_position_embedding import SinusoidalPositionEmbedding
from keras_ext.layers.time_embedding import TimeEmbedding
from keras_ext.layers.unit_normalization import UnitNormalization
from keras_ext.layers.vector_quantizer import VectorQuantizer
from keras_ext.layers.vq_attention import VQAttention

__all__ = [
    "AttachMask",
    "AttentionMask",
    "BigramEmbedding",
    "ComposedEmbedding",
    "DeepNormResidual",
    "DropToken",
    "EfficientGlobalPointer",
    "FSQ",
    "FeedForward",
    "GatedAttentionUnit",
    "GlobalPointer",
    "GroupNorm",
    "LayerNorm",
    "LearnableTemperature",
    "LocalAttentionMask",
    "MaskTokens",
    "MinimalGRU",
    "MixedChunkAttention",
    "MultiHeadSelfAttention",
    "NTKDense",
    "PaddingMask",
    "PairClassifier",
    "PairScore",
    "ParallelRNN",
    "Pooling",
    "PositionEmbedding",
    "RMSNorm",
    "RampedResidual",
    "RandomPositions",
    "RelativePositionEmbedding",
    "ResidualQuantizer",
    "SAU",
    "ScaleNorm",
    "ScaleOffset",
    "ScannedBlocks",
    "SinusoidalPositionEmbedding",
    "TimeEmbedding",
    "UnitNormalization",
    "VQAttention",
    "VectorQuantizer",
    "fold_mlm_mask_embedding",
]
