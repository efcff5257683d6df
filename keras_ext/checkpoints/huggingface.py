"""Encoders in the files of Hugging Face: safetensors and `config.json`."""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from keras_ext.checkpoints.assign import assign_weights, check_patterns, collect_weights
from keras_ext.checkpoints.config_sizes import check_sizes
from keras_ext.checkpoints.huggingface_config import (
    ENCODERS,
    encoder_arguments,
    huggingface_config,
    sizes_of_tensors,
)
from keras_ext.checkpoints.name_lookup import CONSTANTS, absent_names, names_in
from keras_ext.checkpoints.name_tables import weight_names
from keras_ext.checkpoints.safetensors_file import read_safetensors
from keras_ext.files.replaced_files import current_file, replaced_files
from keras_ext.files.text_file import model_folder, read_object
from keras_ext.models.bert import BertEncoder

WEIGHTS, CONFIG = "model.safetensors", "config.json"
# Constants of the encoder, and the heads of an ELECTRA's generator.
NOT_OURS = ("embeddings.position_ids", "encoder.embed_positions.weight")
GENERATOR = ("generator_predictions.*", "generator_lm_head.*")
# The copies of the token embeddings, and of the bias in a tied language model: its bias.
COPIES = {
    "cls.predictions.decoder.weight": "cls.predictions.bias",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "predictions.decoder.weight": "predictions.bias",
    "predictions.decoder.bias": "predictions.bias",
}


def load_huggingface_weights(
    encoder, path, prefix=None, layout="interleaved", allow_missing=(), allow_unused=()
):
    """Fills an encoder from a safetensors file with Hugging Face's names.

    Strict: a tensor that is missing, left over or of another shape is an error that lists all of
    them, and nothing is loaded. Allowed to be left over are the heads that the encoder was not
    given, the generator's of an ELECTRA, constants such as `embeddings.position_ids`, and copies of
    tied weights that are equal to what they copy; the report lists them. Frozen layers are loaded,
    too.

    Args:
        encoder: `BertEncoder`, `AlbertEncoder`, `ElectraEncoder` or `RoFormerEncoder`.
        path: the file, or the folder with `model.safetensors`.
        prefix: str before the names of the encoder (not of the heads). None: that of the kind,
            such as "bert.", where the file has such names, else "".
        layout: "interleaved", or "half" if the file comes from a program that turns channel i of a
            head together with i + head_size / 2 instead of 2 i with 2 i + 1. Hugging Face's
            RoFormer is interleaved.
        allow_missing: tuple of `fnmatch` patterns, names that may lack in the file.
        allow_unused: tuple of `fnmatch` patterns, more names that may be left over.

    Returns:
        `LoadReport` of the names in the file. The old names `LayerNorm.gamma` and `.beta` are
        reported as `.weight` and `.bias`.

    Raises:
        ValueError: if the file is no safetensors file or does not fit the encoder; if the scores of
            its language model have a table of their own; for "half" without rotary positions.

    Example:

    ```python
    encoder = BertEncoder(30522, 6, 12, 384, 1536)
    report = load_huggingface_weights(encoder, "all-MiniLM-L6-v2")
    ```
    """
    values = read_safetensors(_weights_in(path))
    return _fill(encoder, values, prefix, layout, allow_missing, allow_unused)


def encoder_from_huggingface(
    folder,
    prefix=None,
    layout="interleaved",
    allow_missing=(),
    allow_unused=(),
    dtype=None,
    **overrides,
):
    """An encoder with the kind, the sizes and the weights of a Hugging Face folder.

    Args:
        folder: folder with `model.safetensors` and `config.json`. Without the latter it must be a
            BERT; sizes are read off the tensors, and `num_heads` must be given: no tensor shows it.
        prefix: as for `load_huggingface_weights`.
        layout: likewise.
        allow_missing: likewise.
        allow_unused: likewise.
        dtype: dtype policy of all layers, or its name. Defaults to the global policy.
        **overrides: other arguments of the encoder, before those of the folder; heads, such as
            `with_pool=True`, are only made if asked for.

    Returns:
        `BertEncoder`, `AlbertEncoder`, `ElectraEncoder` or `RoFormerEncoder`. Where the config does
        not say which, the names in the file do.

    Raises:
        ValueError: if `config.json` is no JSON, lacks a field, has an impossible value or describes
            another model; and as `load_huggingface_weights`.

    Example:

    ```python
    encoder = encoder_from_huggingface("all-MiniLM-L6-v2", dtype="mixed_bfloat16")
    ```
    """
    folder = model_folder(folder)
    if current_file(folder, CONFIG).exists():
        config = read_object(current_file(folder, CONFIG))
        values = read_safetensors(_weights_in(folder))
        kind, arguments = encoder_arguments(config, _kind_by_names(values))
    else:
        values = read_safetensors(_weights_in(folder))
        kind, arguments = BertEncoder, sizes_of_tensors(values)
        if "num_heads" not in overrides:
            raise ValueError(
                "Without config.json the number of attention heads is unknown; give `num_heads`. "
                f"Received: folder={str(folder)!r}"
            )
    arguments = {**arguments, **overrides}
    check_patterns(allow_missing=allow_missing, allow_unused=allow_unused)
    names = {_modern(name): np.shape(value) for name, value in values.items()}
    named = _naming(weight_names(kind, "huggingface")[0].name, names, prefix)
    check_sizes(kind, arguments, names, "huggingface", named, allow_missing)
    encoder = kind(**arguments, dtype=dtype)
    _fill(encoder, values, prefix, layout, allow_missing, allow_unused)
    return encoder


def save_huggingface(encoder, folder):
    """Writes an encoder as Hugging Face does: `model.safetensors` and `config.json`.

    `encoder_from_huggingface`, with the same heads and `custom_position_ids`, gives an equal
    encoder. Names have the prefix of the kind, such as "bert.", if the encoder has heads for
    pretraining.

    Args:
        encoder: `BertEncoder`, `AlbertEncoder`, `ElectraEncoder` or `RoFormerEncoder`.
        folder: where to write; made if need be. The two files are replaced together, when both are
            whole; others stay.

    Raises:
        ValueError: if Hugging Face's models cannot compute what the encoder does.
        OSError: if a file cannot be written; both are then as they were.

    Example:

    ```python
    save_huggingface(encoder, "mine")
    ```
    """
    config = huggingface_config(encoder)
    values = collect_weights(encoder, names_in(encoder, "huggingface"))
    base = f"{config['model_type']}."
    if all(name.startswith(base) for name in values):
        values = {name.removeprefix(base): value for name, value in values.items()}
    with replaced_files(folder, (WEIGHTS, CONFIG)) as new:
        try:
            save_file(values, new / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(str(error)) from error
        (new / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _weights_in(path):
    """The path to read weights from: of a folder in which a save was cut short, the new file."""
    found = current_file(Path(path), WEIGHTS)
    return found if found.parent != Path(path) else path


def _kind_by_names(values):
    kinds = (kind for kind in ENCODERS if any(name.startswith(f"{kind}.") for name in values))
    return next(kinds, "bert")


def _fill(encoder, values, prefix, layout, allow_missing, allow_unused):
    check_patterns(allow_missing=allow_missing, allow_unused=allow_unused)
    table = names_in(encoder, "huggingface")
    if not table:
        raise ValueError(
            "Hugging Face's names of this encoder are not known. "
            f"Received: encoder={type(encoder).__name__}"
        )
    values = {_modern(name): value for name, value in values.items()}
    named = _naming(table[0].name, values, prefix)
    prefix = named(table[0].name.partition(".")[0] + ".")
    table = [row._replace(name=named(row.name)) for row in table]
    copies = _copies(values, prefix, {row.name for row in table})
    if layout != "interleaved":
        values = _interleaved(encoder, table, values, layout)
    unused = [*(named(name) for name in absent_names(encoder, "huggingface")), *GENERATOR]
    unused += [name for constant in NOT_OURS for name in (constant, prefix + constant)]
    unused += [*copies, *allow_unused]
    return assign_weights(encoder, table, values, (*CONSTANTS, *allow_missing), tuple(unused))


def _naming(first, names, prefix):
    """The function from names of a table, of which `first` is one, to those in a file."""
    base = first.partition(".")[0] + "."
    if prefix is None:
        prefix = base if any(name.startswith(base) for name in names) else ""
    return lambda name: prefix + name.removeprefix(base) if name.startswith(base) else name


def _modern(name):
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def _copies(values, prefix, names):
    """The names of copies of tied weights; those of weights that the encoder has are compared."""
    found = [name for name in COPIES if name in values]
    for copy in found:
        bias, table = COPIES[copy], f"{prefix}embeddings.word_embeddings.weight"
        original = bias if copy.endswith("bias") else table
        if bias not in names or original not in values:
            continue
        if not np.array_equal(values[copy], values[original]):
            raise ValueError(
                "The model is untied: the scores of its language model have weights of their own, "
                f"which the encoders do not have. Received: {copy}, which differs from {original}"
            )
    return found


def _interleaved(encoder, table, values, layout):
    """The tensors with the channels of queries and keys in the order of our rotary embedding."""
    if layout != "half":
        raise ValueError(f"Expected a layout 'interleaved' or 'half'. Received: {layout=}")
    values = dict(values)
    for row in table:
        layer = encoder.get_layer(row.layer)
        if not row.attribute.startswith(("query_dense.", "key_dense.")) or row.name not in values:
            continue
        if not layer.rope:
            raise ValueError(
                "Only rotary positions have a layout; this encoder has others. "
                f"Received: {layout=}, encoder={type(encoder).__name__}"
            )
        value = values[row.name]  # channels first
        if len(value) == row.variable(encoder).shape[-1]:
            halves = value.reshape(layer.heads, 2, -1, *value.shape[1:])
            values[row.name] = halves.swapaxes(1, 2).reshape(value.shape)
    return values
