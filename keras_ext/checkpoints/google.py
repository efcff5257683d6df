"""Weights in the TensorFlow checkpoints that Google, and bert4keras' users, publish."""

from fnmatch import fnmatchcase

import numpy as np

from keras_ext.checkpoints.checkpoint import assign_weights, check_patterns, collect_weights
from keras_ext.checkpoints.name_lookup import CONSTANTS, absent_names, names_in
from keras_ext.checkpoints.tensorflow_checkpoint import read_tensors, tensor_names, write_tensors

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
    slots = {name for name in names if any(fnmatchcase(name, slot) for slot in OPTIMIZER)}
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
