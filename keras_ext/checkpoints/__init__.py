"""Reading and writing the weights of other programs."""

from keras_ext.checkpoints.assign import LoadReport, WeightName, assign_weights, collect_weights
from keras_ext.checkpoints.google import (
    encoder_from_google,
    load_google_weights,
    save_google_weights,
)
from keras_ext.checkpoints.huggingface import (
    encoder_from_huggingface,
    load_huggingface_weights,
    save_huggingface,
)
from keras_ext.checkpoints.name_lookup import names_in
from keras_ext.checkpoints.safetensors_file import read_safetensors

__all__ = [
    "LoadReport",
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
