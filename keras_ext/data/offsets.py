"""Token offsets -> offsets on which the borders of words, as people mark them, fall."""

import unicodedata
from typing import NamedTuple

import numpy as np


class Encoding(NamedTuple):
    """Tokens of one text, without special tokens.

    `ids` is int32 (m,), `offsets` int32 (m, 2): start and end (exclusive) of each token in code
    points of the text. A token that stands for no visible character has zero width.

    Example:

    >>> from keras_ext.data import Tokenizer
    >>> tokenizer = Tokenizer.from_characters(["abc"], min_count=1)
    >>> tokenizer.encode_batch(["a b"])[0].offsets.tolist()
    [[0, 1], [2, 3]]
    """

    ids: np.ndarray
    offsets: np.ndarray


def fit_offsets(text, offsets):
    """Fit token offsets to the visible characters of a text.

    Two things that tokenizers do would otherwise put an entity off the token borders: tokens such
    as `" York"` count the blank before them, and a normaliser that strips accents leaves the
    combining mark of `"e" + U+0301` outside every token. So blanks at the edges of a token are
    taken off, and marks that no token covers are given to the token right before them.

    Args:
        text: String without lone surrogates.
        offsets: Integer array (m, 2), start and end (exclusive) of each token in code points.

    Returns:
        int32 array (m, 2). A token of blanks only has zero width.

    Example:

    >>> fit_offsets("in York", np.array([[0, 2], [2, 7]]))[1].tolist()
    [3, 7]
    """
    offsets = np.asarray(offsets, "int32").reshape(-1, 2)
    if not len(offsets):
        return offsets
    codes = np.frombuffer(text.encode("utf-32-le"), "uint32")
    kinds, inverse = np.unique(codes, return_inverse=True)
    space = np.array([chr(c).isspace() for c in kinds], bool)[inverse]
    marks = [unicodedata.category(chr(c)).startswith("M") for c in kinds]
    mark = np.array(marks, bool)[inverse]
    start, end = offsets.T
    start = np.minimum(_skip(space)[start], end)
    end = np.maximum(len(text) - _skip(space[::-1])[len(text) - end], start)
    if mark.any():
        # A token's marks end where the next token begins.
        limit = np.append(start[1:], len(text))
        extended = np.minimum(_skip(mark)[end], limit)
        end = np.where(end > start, np.maximum(end, extended), end)
    return np.stack([start, end], axis=1).astype("int32")


def _skip(flags):
    """Of each position (n + 1), the first position from there on that is not flagged."""
    positions = np.append(np.where(flags, len(flags), np.arange(len(flags))), len(flags))
    return np.minimum.accumulate(positions[::-1])[::-1]
