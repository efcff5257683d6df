"""A folder of the sentence-transformers library as the parts of a `SentenceEncoder`."""

import keras
import numpy as np

from keras_ext.checkpoints import encoder_from_huggingface
from keras_ext.checkpoints.assign import WeightName, assign_weights
from keras_ext.checkpoints.safetensors_file import read_safetensors
from keras_ext.data import Tokenizer
from keras_ext.files.replaced_files import current_file
from keras_ext.files.text_file import model_folder
from keras_ext.sentences.sentence_transformers_settings import POSITIONS, read_fields, read_settings

ROTARY_LENGTH = 1536  # Hugging Face's for a RoFormer, where the config has no other


def read_folder(folder, dtype, max_length):
    """What `SentenceEncoder.from_huggingface` reads, which describes the arguments.

    Returns:
        The arguments of a `SentenceEncoder` by name, and its projections, built layers.
    """
    settings = read_settings(model_folder(folder))  # before what is slow
    encoder = encoder_from_huggingface(settings.encoder, dtype=dtype)
    parts = {
        "encoder": encoder,
        "tokenizer": _tokenizer(settings),
        "pooling": settings.pooling,
        "normalize": settings.normalize,
        "score": settings.score,
        "max_length": _longest(settings, encoder) if max_length is None else max_length,
    }
    return parts, [_dense(path, config) for path, config in settings.projections]


def _longest(settings, encoder):
    """The number of tokens at which texts are cut."""
    positions = getattr(encoder, "max_sequence_length", None)
    if positions is None:  # rotary ones have no end, but the folder's have
        config = read_fields(current_file(settings.encoder, "config.json"), POSITIONS)
        positions = config.get("max_position_embeddings", ROTARY_LENGTH)
    # Old folders have it beside the model, new ones in the settings of the tokenizer.
    limit = settings.texts.get("max_seq_length") or settings.tokens.get("model_max_length")
    return int(min(limit or positions, positions))


def _tokenizer(settings):
    folder = settings.encoder
    if settings.texts.get("do_lower_case"):
        raise ValueError(
            "A text that is lowered before a tokenizer which keeps the case is not known here. "
            f"Received: do_lower_case=True in {str(folder)!r}"
        )
    return Tokenizer.from_huggingface(folder)


def _dense(folder, config):
    """A projection with its weights, computed in float32."""
    weights = read_safetensors(folder)
    if np.ndim(weights.get("linear.weight")) != 2:
        raise ValueError(
            "A Dense of sentence-transformers has a matrix linear.weight, and maybe linear.bias. "
            f"Received: { ({name: x.shape for name, x in weights.items()}) } in {str(folder)!r}"
        )
    kernel, bias = weights["linear.weight"].T, weights.get("linear.bias")
    found = {"in_features": kernel.shape[0], "out_features": kernel.shape[-1]}
    found["bias"] = bias is not None
    for key, value in found.items():
        if config.get(key, value) != value:
            raise ValueError(
                f'In config.json, "{key}" should be {value!r}, as the tensors say. '
                f"Received: {key}={config[key]!r} in {str(folder)!r}"
            )
    dense = keras.layers.Dense(
        kernel.shape[1],
        activation=config["activation"],
        use_bias=bias is not None,
        dtype="float32",
        name=folder.name,
    )
    table = [WeightName(folder.name, "kernel", "linear.weight", True)]
    table += [WeightName(folder.name, "bias", "linear.bias")] if dense.use_bias else []
    assign_weights(keras.Sequential([keras.Input(kernel.shape[:1]), dense]), table, weights)
    return dense
