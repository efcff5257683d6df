"""Texts through the model: rows of token ids, batches of these, vectors."""

import warnings

import keras
import numpy as np

from keras_ext.data import bucket_lengths, pad_rows
from keras_ext.ops import unit_vectors
from keras_ext.tasks.inputs import numeric


def token_rows(tokenizer, texts, max_length):
    """The ids of each text between the start and the end token, cut to `max_length`.

    Args:
        tokenizer: `data.Tokenizer`.
        texts: list of strings.
        max_length: int, tokens of a row, the two special ones included.

    Returns:
        List of int32 arrays, and a list of bools: which texts were cut.
    """
    start, end = [tokenizer.start_id], [tokenizer.end_id]
    found = tokenizer.encode_ids(texts)
    rows = [np.concatenate([start, ids[: max_length - 2], end], dtype="int32") for ids in found]
    return rows, [len(ids) > max_length - 2 for ids in found]


def column_rows(tokenizer, columns, max_length):
    """`token_rows` of several lists of texts, each text once, wherever it stands.

    Args:
        tokenizer: `data.Tokenizer`.
        columns: list of lists of strings.
        max_length: int, tokens of a row, the two special ones included.

    Returns:
        For each list the int32 arrays of its texts, and the number of those that were cut.
    """
    texts = list(dict.fromkeys(text for column in columns for text in column))
    rows, cut = token_rows(tokenizer, texts, max_length)
    rows, cut = dict(zip(texts, rows, strict=True)), dict(zip(texts, cut, strict=True))
    counts = [sum(cut[text] for text in column) for column in columns]
    return [[rows[text] for text in column] for column in columns], counts


def warn_of_cut(cut, texts, max_length, stacklevel=3):
    """Warns of texts that were cut, if there are any."""
    if cut:
        warnings.warn(
            f"{cut} of {texts} texts have more than max_length={max_length} tokens; what comes "
            "after is not read.",
            stacklevel=stacklevel,
        )


def row_batches(model, rows, batch_size, max_length, pad_id):
    """Yields the indices of rows, the longest first, and the model's inputs for them.

    Args:
        model: `keras.Model` from token ids to vectors.
        rows: list of int32 arrays.
        batch_size: int, rows in a batch.
        max_length: int, tokens of the longest batch.
        pad_id: int, id of the padding token.
    """
    lengths = np.array([len(row) for row in rows])
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        shape = batch_shape(model, len(chosen), lengths[chosen[0]], batch_size, max_length)
        inputs = pad_rows([rows[i] for i in chosen], *shape, pad_id)
        yield chosen, keras.tree.map_structure(numeric, inputs)


def fill_vectors(vectors, model, batches, texts, bar=None):
    """Puts the first components of the vectors that a model gives into an array.

    Args:
        vectors: float32 array (texts, d), which is filled.
        model: `keras.Model` from token ids to vectors.
        batches: what `row_batches` gives, or a list of it.
        texts: list of the strings.
        bar: `keras.utils.Progbar`, or None.

    Raises:
        ValueError: for a vector that is not finite.
    """
    for chosen, inputs in batches:
        found = np.asarray(model.predict_on_batch(inputs))[: len(chosen), : vectors.shape[1]]
        finite = np.isfinite(found).all(axis=1)
        if not finite.all():
            text = texts[chosen[np.flatnonzero(~finite)[0]]]
            raise ValueError(
                "The model gives a vector that is not finite. Expected weights that are. "
                f"Received: text={text!r:.80}"
            )
        vectors[chosen] = found
        if bar is not None:
            bar.add(len(chosen))


def batch_shape(model, rows, length, batch_size, max_length):
    """Rows and columns of a batch: few different ones where each of them compiles anew."""
    if keras.backend.backend() == "tensorflow" and not model.jit_compile:
        return rows, length
    return batch_size, next(size for size in bucket_lengths(max_length) if size >= length)


def unit_rows(vectors):
    """`ops.unit_vectors` of an array, as an array."""
    return keras.ops.convert_to_numpy(unit_vectors(vectors))


def comparable(vectors, score):
    """Vectors whose inner products are scores: for the cosine of length 1, copied if they are not."""
    if score != "cosine":
        return vectors
    squares = np.einsum("ij,ij->i", vectors, vectors)
    return vectors if (np.abs(squares - 1.0) < 1e-5).all() else unit_rows(vectors)
