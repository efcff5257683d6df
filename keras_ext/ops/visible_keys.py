"""Which keys a query may see, and how many."""

from keras import ops


def visible_keys(mask=None, attention_mask=None, causal=False, length=None):
    """The keys that each query sees, by all that is said about it.

    Args:
        mask: (b, m) bool, the keys that are tokens. A list of masks, such as Keras makes of those
            of a list of inputs, holds it as the second. None: all are tokens.
        attention_mask: (b, n, m) or (1, n, m) bool, the keys that each query may see. None: all.
        causal: bool, whether a query sees only the keys up to its own place.
        length: int or scalar tensor, n = m, for `causal`.

    Returns:
        Boolean tensor that broadcasts to (b, n, m), or None: all are visible.

    Example:

    >>> import numpy as np
    >>> visible = visible_keys(np.array([[True, True, False]]), causal=True, length=3)
    >>> np.array(visible).astype(int).tolist()
    [[[1, 0, 0], [1, 1, 0], [1, 1, 0]]]
    """
    mask = mask[1] if isinstance(mask, (list, tuple)) else mask
    parts = [] if mask is None else [ops.cast(ops.expand_dims(mask, 1), "bool")]  # (b, 1, m)
    if attention_mask is not None:
        parts.append(ops.cast(attention_mask, "bool"))
    if causal:
        place = ops.arange(length, dtype="int32")
        parts.append((place[None, :] <= place[:, None])[None])  # (1, n, n)
    visible = None
    for part in parts:
        visible = part if visible is None else ops.logical_and(visible, part)
    return visible


def count_keys(visible, size):
    """The number of keys that each query sees.

    Args:
        visible: boolean tensor that broadcasts to (..., n, m), or None: all are visible.
        size: int or scalar tensor, m.

    Returns:
        float32 tensor (..., n or 1, 1); a scalar for None.

    Example:

    >>> import numpy as np
    >>> np.array(count_keys(np.array([[True, False, True], [False] * 3]), 3)).tolist()
    [[2.0], [0.0]]
    """
    if visible is None:
        return ops.cast(size, "float32")
    # One column of the mask may stand for all keys.
    visible = ops.logical_and(visible, ops.ones((size,), "bool"))
    return ops.sum(ops.cast(visible, "float32"), axis=-1, keepdims=True)
