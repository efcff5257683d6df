"""A `SentenceEncoder` from a folder of the sentence-transformers library."""

import keras
import numpy as np

from keras_ext.checkpoints import encoder_from_huggingface
from keras_ext.checkpoints.assign import WeightName, assign_weights
from keras_ext.checkpoints.safetensors_file import read_safetensors
from keras_ext.data import Tokenizer
from keras_ext.files.replaced_files import current_file
from keras_ext.files.text_file import model_folder
from keras_ext.sentences.encoder import SentenceEncoder
from keras_ext.sentences.model import project
from keras_ext.sentences.sentence_transformers_settings import POSITIONS, read_fields, read_settings

ROTARY_LENGTH = 1536  # Hugging Face's for a RoFormer, where the config has no other


def sentence_encoder_from_huggingface(folder, dtype=None, max_length=None):
    """A `SentenceEncoder` from a folder of the sentence-transformers library.

    The encoder inside is a BERT, ALBERT, ELECTRA or RoFormer (`checkpoints.encoder_from_huggingface`).
    `modules.json` says what stands there: pooling, projections (its Dense), normalisation, the
    length at which texts are cut and the similarity are taken over.

    Args:
        folder: path, with `modules.json`, `config.json`, `model.safetensors`, and `tokenizer.json`
            or `vocab.txt`.
        dtype: dtype policy of the encoder, or its name. Defaults to the global policy.
        max_length: int, tokens at which texts are cut. None: that of the folder.

    Returns:
        A `SentenceEncoder` that gives the same vectors.

    Raises:
        ValueError: if the folder holds another kind of encoder, module, pooling, activation or
            similarity, a default prompt, or a tokenizer that splits Chinese into words first (that
            of RoFormers whose vocabulary holds such words), which are not known here.

    Example:

    ```python
    encoder = sentence_encoder_from_huggingface("all-MiniLM-L6-v2", dtype="mixed_bfloat16")
    encoder.similarity(["How old are you?"], ["What is your age?"])
    ```
    """
    settings = read_settings(model_folder(folder))  # before what is slow
    encoder = encoder_from_huggingface(settings.encoder, dtype=dtype)
    sentences = SentenceEncoder(
        encoder,
        _tokenizer(settings),
        pooling=settings.pooling,
        normalize=settings.normalize,
        score=settings.score,
        max_length=_longest(settings, encoder) if max_length is None else max_length,
    )
    for path, config in settings.projections:
        sentences.model = project(sentences.model, _dense(path, config), settings.normalize)
    return sentences


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
