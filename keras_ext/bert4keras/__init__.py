"""The door for bert4keras' users: its models, configs, weights and saved models."""

from keras_ext.bert4keras.build_transformer_model import Transformer, build_transformer_model
from keras_ext.bert4keras.convert import ConversionReport, convert
from keras_ext.bert4keras.weights import load_bert4keras_weights, save_bert4keras_weights

__all__ = [
    "ConversionReport",
    "Transformer",
    "build_transformer_model",
    "convert",
    "load_bert4keras_weights",
    "save_bert4keras_weights",
]
