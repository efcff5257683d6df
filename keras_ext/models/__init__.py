"""Encoders, and reading their weights from files."""

from keras_ext.models.albert import AlbertEncoder
from keras_ext.models.albert_unshared import AlbertUnsharedEncoder
from keras_ext.models.bert import BertEncoder
from keras_ext.models.bert4keras import load_bert4keras_weights, save_bert4keras_weights
from keras_ext.models.bigram_roformer import BigramRoFormerEncoder
from keras_ext.models.build_transformer_model import Transformer, build_transformer_model
from keras_ext.models.checkpoint import (
    LoadReport,
    NamedWeight,
    assign_weights,
    collect_weights,
)
from keras_ext.models.convert import ConversionReport, convert
from keras_ext.models.electra import ElectraEncoder
from keras_ext.models.encoder_from_google import encoder_from_google
from keras_ext.models.gau import GAUEncoder
from keras_ext.models.gau_alpha import GAUAlphaEncoder
from keras_ext.models.google import load_google_weights, save_google_weights
from keras_ext.models.huggingface import (
    encoder_from_huggingface,
    load_huggingface_weights,
    save_huggingface,
)
from keras_ext.models.name_lookup import names_in
from keras_ext.models.names import WeightName
from keras_ext.models.nezha import NezhaEncoder
from keras_ext.models.roformer import RoFormerEncoder
from keras_ext.models.roformer_v2 import RoFormerV2Encoder
from keras_ext.models.safetensors_file import read_safetensors

__all__ = [
    "AlbertEncoder",
    "AlbertUnsharedEncoder",
    "BertEncoder",
    "BigramRoFormerEncoder",
    "ConversionReport",
    "ElectraEncoder",
    "GAUAlphaEncoder",
    "GAUEncoder",
    "LoadReport",
    "NamedWeight",
    "NezhaEncoder",
    "RoFormerEncoder",
    "RoFormerV2Encoder",
    "Transformer",
    "WeightName",
    "assign_weights",
    "build_transformer_model",
    "collect_weights",
    "convert",
    "encoder_from_google",
    "encoder_from_huggingface",
    "load_bert4keras_weights",
    "load_google_weights",
    "load_huggingface_weights",
    "names_in",
    "read_safetensors",
    "save_bert4keras_weights",
    "save_google_weights",
    "save_huggingface",
]
