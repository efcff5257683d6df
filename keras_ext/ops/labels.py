"""Sparse labels, that is padded lists of indices, brought to the axis that they index."""

from keras import ops

from keras_ext.ops.masking import MASKED


def first_occurrences(indices, valid):
    """True for each valid index that does not repeat an earlier valid one of its list.

    Args:
        indices: integer (..., k).
        valid: boolean (..., k); false entries are padding.

    Returns:
        Boolean (..., k).

    Example:

    >>> import numpy as np
    >>> valid = np.array([True, True, True, False])
    >>> np.array(first_occurrences(np.array([4, 2, 4, 0]), valid)).tolist()
    [True, True, False, False]
    """
    same = ops.equal(indices[..., :, None], indices[..., None, :])  # (..., k, k)
    positions = ops.arange(ops.shape(indices)[-1])
    earlier = positions[:, None] > positions
    repeated = ops.logical_and(ops.logical_and(same, earlier), valid[..., None, :])
    return ops.logical_and(valid, ops.logical_not(ops.any(repeated, axis=-1)))


def mask_labels(scores, indices, valid):
    """Masks the scores that a list of indices names.

    Args:
        scores: float32 (b, size).
        indices: integer (b, k), each in [0, size); what padding holds must be in range, too.
        valid: boolean (b, k); false entries are padding.

    Returns:
        float32 (b, size). Repeated indices change nothing.

    Example:

    >>> import numpy as np
    >>> from keras_ext.ops import is_masked
    >>> scores = np.zeros((1, 3), "float32")
    >>> masked = mask_labels(scores, np.array([[2, 0]]), np.array([[True, False]]))
    >>> np.array(is_masked(masked)).tolist()
    [[False, False, True]]
    """
    batch, count = ops.shape(indices)
    rows = ops.broadcast_to(ops.arange(batch, dtype="int32")[:, None], (batch, count))
    cells = ops.reshape(ops.stack([rows, ops.cast(indices, "int32")], axis=-1), (-1, 2))
    # Adding needs no second (b, size) tensor, and padding adds 0.
    offsets = ops.reshape(ops.where(valid, MASKED, 0.0), (-1,))
    return ops.scatter_update(scores, cells, offsets, reduction="add")


def span_labels(spans, heads, length):
    """Reads padded span labels.

    Args:
        spans: (b, k, 3) `type, start, end` with inclusive end, padded with -1; integers, or floats
            that hold integers (Keras casts labels to float32).
        heads: int, the number of entity types.
        length: int or scalar tensor n, the number of tokens.

    Returns:
        types, starts, ends, each int32 (b, k) and in range (0 where invalid), and valid, boolean
        (b, k): true where type, start and end of the label are all in range. An empty list is
        given one entry of padding.

    Raises:
        ValueError: if the labels are not (b, k, 3).

    Example:

    >>> import numpy as np
    >>> spans = np.array([[[1, 0, 4], [-1, -1, -1], [0, 0, 9]]])  # the last one is out of range
    >>> *_, valid = span_labels(spans, heads=2, length=5)
    >>> np.array(valid).tolist()
    [[True, False, False]]
    """
    if len(spans.shape) != 3 or spans.shape[-1] != 3:
        raise ValueError(
            "Span labels have the shape (batch, count, 3), holding type, start, end. "
            f"Received: shape={tuple(spans.shape)}"
        )
    if spans.shape[1] == 0:
        spans = ops.pad(spans, [[0, 0], [0, 1], [0, 0]], constant_values=-1)
    spans = ops.cast(spans, "int32")  # products of float32 indices would be inexact
    limits = ops.stack([heads, length, length])
    valid = ops.all(ops.logical_and(spans >= 0, spans < ops.cast(limits, "int32")), axis=-1)
    spans = ops.where(valid[..., None], spans, 0)
    return spans[..., 0], spans[..., 1], spans[..., 2], valid
