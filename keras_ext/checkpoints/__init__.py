"""Reading and writing the weights of other programs."""

from keras_ext.checkpoints.checkpoint import (
    LoadReport,
    NamedWeight,
    assign_weights,
    collect_weights,
)
from keras_ext.checkpoints.encoder_from_google import encoder_from_google
from keras_ext.checkpoints.google import load_google_weights, save_google_weights
from keras_ext.checkpoints.huggingface import (
    encoder_from_huggingface,
    load_huggingface_weights,
    save_huggingface,
)
from keras_ext.checkpoints.name_lookup import names_in
from keras_ext.checkpoints.names import WeightName
from keras_ext.checkpoints.safetensors_file import read_safetensors

__all__ = [
    "LoadReport",
    "NamedWeight",
    "WeightName",
    "assign_weights",
    "collect_weights",
    "encoder_from_google",
    "encoder_from_huggingface",
    "load_google_weights",
    "load_huggingface_weights",
    "names_in",
    "read_safetensors",
    "save_google_weights",
    "save_huggingface",
]
