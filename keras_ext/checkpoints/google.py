"""Encoders in the TensorFlow checkpoints that Google, and bert4keras' users, publish."""

import warnings

import numpy as np

from keras_ext.checkpoints.assign import (
    assign_weights,
    check_patterns,
    collect_weights,
    matches,
)
from keras_ext.checkpoints.config_sizes import check_sizes
from keras_ext.checkpoints.google_config import encoder_arguments, encoder_class
from keras_ext.checkpoints.name_lookup import CONSTANTS, absent_names, names_in
from keras_ext.checkpoints.tensorflow_checkpoint import (
    read_tensors,
    tensor_names,
    tensor_shapes,
    write_tensors,
)
from keras_ext.files.text_file import read_object

# What training keeps beside the weights: moments, powers of beta, counters, scales of the loss.
OPTIMIZER = (
    "*/adam_[mv]",
    "*/lamb_[mv]",
    "*/[Aa]dam",
    "*/[Aa]dam_1",
    "*/LAMB*",
    "*/AdamWeightDecayOptimizer*",
    "*/Momentum",
    "*beta[12]_power",
    "*global_step",
    "*loss_scale",
    "*good_steps",
)
# An ELECTRA's file has the network that replaced the tokens, too.
OTHER_TOWERS = ("generator/*", "generator_predictions/*")
VOCABULARY = ("Embedding-Token", "MLM-Bias")


def load_google_weights(
    encoder,
    path,
    keep_tokens=None,
    compound_tokens=None,
    allow_missing=(),
    allow_unused=(),
):
    """Fills an encoder from a TensorFlow checkpoint with Google's names.

    Strict: a tensor that is missing, left over or of another shape is an error that lists all of
    them, and nothing is loaded. Allowed to be left over are the heads that the encoder was not
    given, the slots of an optimizer and the generator of an ELECTRA; the report lists them. Frozen
    layers are loaded, too.

    The vocabulary can be changed on the way, as in bert4keras: row i of the table of the tokens
    (and of the bias of the language model) is row `keep_tokens[i]` of the file, then for each of
    `compound_tokens` comes the average of rows that were kept.

    Args:
        encoder: encoder, or another `keras.Model` with `weight_names`.
        path: prefix of the files, such as "bert_model.ckpt"; the `.index` file; or a folder with
            exactly one checkpoint.
        keep_tokens: list of ids of the file. None: all.
        compound_tokens: list of lists of ids, or of tuples `(ids, weights)`, of the vocabulary
            after `keep_tokens`. Their vectors' averages are appended.
        allow_missing: tuple of `fnmatch` patterns, names that may lack in the file.
        allow_unused: tuple of `fnmatch` patterns, more names that may be left over.

    Returns:
        `LoadReport` of the names in the file.

    Raises:
        ValueError: if the path names no TensorFlow checkpoint (saying what it is); if its data is
            cut off (naming the tensors); if it does not fit the encoder; if an id is outside the
            vocabulary; if TensorFlow is not installed.

    Example:

    ```python
    encoder = BertEncoder(21128, 12, 12, 768, 3072)
    report = load_google_weights(encoder, "chinese_L-12_H-768_A-12/bert_model.ckpt")
    ```
    """
    check_patterns(allow_missing=allow_missing, allow_unused=allow_unused)
    table = names_in(encoder, "google")
    names = tensor_names(path)
    slots = {name for name in names if matches(name, OPTIMIZER)}
    # The slots, often two thirds of a file, are only named.
    values = {**dict.fromkeys(slots), **read_tensors(path, [n for n in names if n not in slots])}
    for row in table:
        if row.layer in VOCABULARY and row.name in values:
            values[row.name] = _chosen_rows(values[row.name], keep_tokens, compound_tokens)
    return assign_weights(
        encoder,
        table,
        values,
        (*CONSTANTS, *allow_missing),
        (*absent_names(encoder, "google"), *OPTIMIZER, *OTHER_TOWERS, *allow_unused),
    )


def encoder_from_google(
    config_path=None,
    checkpoint_path=None,
    model="bert",
    application="encoder",
    gelu="erf",
    keep_tokens=None,
    compound_tokens=None,
    ignore_invalid_weights=False,
    allow_unused=(),
    **kwargs,
):
    """An encoder with the sizes of a config file and the weights of a TensorFlow checkpoint.

    Its inputs come by name, as those of every encoder, so that it serves in the tasks;
    `build_transformer_model` gives the same with bert4keras' list of inputs.

    Args:
        config_path: JSON file, `bert_config.json`. None: all sizes are given in `kwargs`. Keys
            that mean nothing here are reported by a warning.
        checkpoint_path: Google-style TensorFlow checkpoint, such as `bert_model.ckpt`; see
            `load_google_weights`. None: random weights.
        model: "bert", "roberta", "albert", "albert_unshared", "nezha", "roformer", "roformer_v2",
            "gau_alpha", "electra", or the class of an encoder. Defaults to "bert".
        application: "encoder"; "lm" or "unilm" mask the attention for generation and switch
            `with_mlm` on. Defaults to "encoder".
        gelu: "erf" or "tanh", what the activation "gelu" means. Google's own code has "tanh",
            bert4keras "erf" unless `set_gelu` was called. Defaults to "erf".
        keep_tokens: list of int, ids of the checkpoint to keep, in the new order. None: all.
        compound_tokens: list of lists of int (or of tuples of such a list and weights): new ids at
            the end, whose vectors are averages. None: none.
        ignore_invalid_weights: bool, whether weights may lack in the checkpoint, which keep their
            random values and are reported by a warning. Defaults to False.
        allow_unused: tuple of `fnmatch` patterns of names that may be left over in the checkpoint,
            such as those of the blocks that a smaller `num_hidden_layers` leaves out.
        **kwargs: before the keys of the config, in bert4keras' words, as for
            `build_transformer_model`; and ours: `column_dropout`, `dtype`.

    Returns:
        An encoder.

    Raises:
        ValueError: for a config that is no JSON, lacks a field or has an impossible value, an
            argument without a meaning, GPT and T5; and as `load_google_weights`.

    Example:

    ```python
    folder = "chinese_L-12_H-768_A-12/"
    encoder = encoder_from_google(folder + "bert_config.json", folder + "bert_model.ckpt")
    ```
    """
    # As in bert4keras, capitals do not matter.
    model, application = (x.lower() if isinstance(x, str) else x for x in (model, application))
    kind = encoder_class(model, application)
    config = {} if config_path is None else read_object(config_path)
    arguments = encoder_arguments(kind, config, kwargs, application, gelu)
    allow_missing = ("*",) if ignore_invalid_weights else ()
    if checkpoint_path is not None:
        # Rows that are kept may be fewer, and what is kept is compared with the file later.
        rows = arguments["vocabulary_size"] if keep_tokens is None else None
        shapes = tensor_shapes(checkpoint_path)
        check_sizes(
            kind, {**arguments, "vocabulary_size": rows}, shapes, "google", str, allow_missing
        )
    if keep_tokens is not None:
        arguments["vocabulary_size"] = len(keep_tokens)
    arguments["vocabulary_size"] += len(compound_tokens or ())
    encoder = kind(**arguments)
    if checkpoint_path is not None:
        report = load_google_weights(
            encoder, checkpoint_path, keep_tokens, compound_tokens, allow_missing, allow_unused
        )
        random = [name for name in report.missing if not matches(name, CONSTANTS)]
        if random:
            warnings.warn(
                f"Not in the checkpoint, and random therefore: {', '.join(random)}.", stacklevel=2
            )
    return encoder


def save_google_weights(encoder, path):
    """Writes the weights of an encoder as a TensorFlow checkpoint with Google's names.

    `load_google_weights`, bert4keras and Google's own programs read it.

    Args:
        encoder: encoder, or another `keras.Model` with `weight_names`.
        path: prefix of the two files, `path`.index and `path`.data-00000-of-00001.

    Raises:
        OSError: if a file cannot be written; both are then as they were.
        ValueError: if a weight has no name in such files; if the path is a folder, or TensorFlow
            takes it for a pattern; if TensorFlow is not installed.

    Example:

    ```python
    save_google_weights(encoder, "mine/bert_model.ckpt")
    ```
    """
    write_tensors(path, collect_weights(encoder, names_in(encoder, "google"), CONSTANTS))


def _chosen_rows(rows, keep_tokens, compound_tokens):
    if "float" in rows.dtype.name:  # what else it is, is refused later
        rows = rows.astype("float32")
    if keep_tokens is not None:
        _check_ids("keep_tokens", keep_tokens, len(rows))
        rows = rows[list(keep_tokens)]
    compounds = []
    for item in compound_tokens or ():
        ids, weights = (item, [1] * len(item)) if isinstance(item, list) else item
        _check_ids("compound_tokens", ids, len(rows))
        compounds.append(np.average(rows[ids], 0, weights))
    return np.concatenate([rows, compounds]).astype(rows.dtype) if compounds else rows


def _check_ids(name, ids, size):
    bad = [i for i in ids if not 0 <= i < size]
    if bad or len(ids) == 0:
        raise ValueError(
            f"Expected ids in [0, {size}), at least one. Received: {name} with {bad or 'no ids'}"
        )
