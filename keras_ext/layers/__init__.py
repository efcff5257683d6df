"""Layers, one class a file."""

from keras_ext.layers.attach_mask import AttachMask
from keras_ext.layers.attention_mask import AttentionMask
from keras_ext.layers.bigram_embedding import BigramEmbedding
from keras_ext.layers.efficient_global_pointer import EfficientGlobalPointer
from keras_ext.layers.feed_forward import FeedForward
from keras_ext.layers.gated_attention_unit import GatedAttentionUnit
from keras_ext.layers.global_pointer import GlobalPointer
from keras_ext.layers.layer_norm import LayerNorm
from keras_ext.layers.multi_head_self_attention import MultiHeadSelfAttention
from keras_ext.layers.padding_mask import PaddingMask
from keras_ext.layers.position_embedding import PositionEmbedding
from keras_ext.layers.relative_position_embedding import RelativePositionEmbedding
from keras_ext.layers.rms_norm import RMSNorm
from keras_ext.layers.scale_offset import ScaleOffset

__all__ = [
    "AttachMask",
    "AttentionMask",
    "BigramEmbedding",
    "EfficientGlobalPointer",
    "FeedForward",
    "GatedAttentionUnit",
    "GlobalPointer",
    "LayerNorm",
    "MultiHeadSelfAttention",
    "PaddingMask",
    "PositionEmbedding",
    "RMSNorm",
    "RelativePositionEmbedding",
    "ScaleOffset",
]
