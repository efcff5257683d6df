"""Layers, one class a file."""

from keras_ext.layers.bigram_embedding import BigramEmbedding
from keras_ext.layers.efficient_global_pointer import EfficientGlobalPointer
from keras_ext.layers.feed_forward import FeedForward
from keras_ext.layers.global_pointer import GlobalPointer
from keras_ext.layers.multi_head_self_attention import MultiHeadSelfAttention
from keras_ext.layers.position_embedding import PositionEmbedding

__all__ = [
    "BigramEmbedding",
    "EfficientGlobalPointer",
    "FeedForward",
    "GlobalPointer",
    "MultiHeadSelfAttention",
    "PositionEmbedding",
]
