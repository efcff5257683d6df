"""Encoders, and reading their weights from files."""

from keras_ext.models.bert import BertEncoder
from keras_ext.models.bigram_roformer import BigramRoFormerEncoder
from keras_ext.models.checkpoint import (
    LoadReport,
    NamedWeight,
    assign_weights,
)
from keras_ext.models.huggingface import (
    bert_from_huggingface,
    bert_names,
    load_bert_safetensors,
)
from keras_ext.models.roformer import RoFormerEncoder
from keras_ext.models.safetensors_file import read_safetensors

__all__ = [
    "BertEncoder",
    "BigramRoFormerEncoder",
    "LoadReport",
    "NamedWeight",
    "RoFormerEncoder",
    "assign_weights",
    "bert_from_huggingface",
    "bert_names",
    "load_bert_safetensors",
    "read_safetensors",
]
