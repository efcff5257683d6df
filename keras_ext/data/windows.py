"""Long texts as overlapping windows of tokens."""

from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """A piece of a document, framed by the start and end tokens.

    `document` is the index of the document, `first` that of the window's first real token among
    the document's tokens. `ids` is int32 (n,), special tokens included; `offsets` int32 (n, 2)
    holds characters of the document, (-1, -1) at the special tokens.

    Example:

    >>> Window(0, 0, np.array([2, 7, 3]), np.array([[-1, -1], [0, 4], [-1, -1]])).first
    0
    """

    document: int
    first: int
    ids: np.ndarray
    offsets: np.ndarray


def make_windows(encoding, document, max_length, stride, start_id, end_id):
    """Cut an encoded document into windows that cover every token.

    A document that fits gives one window, one without tokens none. The last of several windows
    is shifted left to full length, so it overlaps more.

    Args:
        encoding: `Encoding` of the document, without special tokens.
        document: Index of the document, kept in each window.
        max_length: Largest number of tokens in a window, the two special ones included.
        stride: Number of tokens that consecutive windows share, as in Hugging Face tokenizers:
            0 <= stride < max_length - 2.
        start_id: Id put in front.
        end_id: Id put at the end.

    Returns:
        List of `Window`.

    Raises:
        ValueError: If `stride` or `max_length` is out of range.

    Example:

    >>> from keras_ext.data import Encoding
    >>> encoding = Encoding(np.arange(10, 15), np.stack([np.arange(5), np.arange(1, 6)], axis=1))
    >>> [w.ids.tolist() for w in make_windows(encoding, 0, 6, 2, start_id=1, end_id=2)]
    [[1, 10, 11, 12, 13, 2], [1, 11, 12, 13, 14, 2]]
    """
    size = max_length - 2
    if not 0 <= stride < size:
        raise ValueError(
            "windows must move forward. Expected 0 <= stride < max_length - 2. Received: "
            f"stride={stride}, max_length={max_length}"
        )
    count = len(encoding.ids)
    if not count:
        return []
    last = max(count - size, 0)
    special = np.full((1, 2), -1, "int32")
    windows = []
    for first in [*range(0, last, size - stride), last]:
        part = slice(first, first + size)
        ids = np.concatenate([[start_id], encoding.ids[part], [end_id]]).astype("int32")
        offsets = np.concatenate([special, encoding.offsets[part], special]).astype("int32")
        windows.append(Window(document, first, ids, offsets))
    return windows
