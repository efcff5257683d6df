"""Sparse labels, that is padded lists of indices, brought to the axis that they index."""

import keras
import numpy as np
from keras import ops

from keras_ext.ops.masking import MASKED

FAR = 2**30
"""Above every index; integers beyond it count as it, for an int32 would hold another one."""


def label_tensor(labels):
    """Labels that are integers as a tensor; where the host still holds them, it looks at them.

    Args:
        labels: array, nested list or tensor of integers, or of floats that hold integers.

    Returns:
        A tensor: of what are no tensors, int32 for integers (`FAR` for larger ones).

    Raises:
        ValueError: for an array or a list with a fraction, NaN or infinity. What is a tensor
            already is not waited for: see `nan_unless_integers`.

    Example:

    >>> np.array(label_tensor([[3, -1, 2**40]])).tolist()
    [[3, -1, 1073741824]]
    """
    check_integers(labels)
    if ops.is_tensor(labels):
        return labels
    labels = np.asarray(labels)
    if labels.dtype.kind != "f":
        # Before any conversion, in which NumPy would wrap around what an int64 does not hold.
        labels = np.clip(labels, np.int64(-1), np.int64(FAR)).astype("int32")
    return ops.convert_to_tensor(labels)


def check_integers(labels):
    """Raises where an array or a list of labels, one that is no tensor yet, holds a fraction or NaN.

    Raises:
        ValueError: as it says, or for infinity.
    """
    if ops.is_tensor(labels):
        return
    labels = np.asarray(labels)
    if labels.dtype.kind != "f":
        return
    bad = np.argwhere(~(np.isfinite(labels) & (labels == np.floor(labels))))
    if len(bad):
        place = tuple(bad[0].tolist())
        raise ValueError(
            f"These labels are integers. Received: {len(bad)} that are none, the first is "
            f"y_true[{', '.join(map(str, place))}]={labels[place]}"
        )


def lossless_tensor(labels):
    """Labels of any size as a tensor that holds them.

    Raises:
        ValueError: for an array of integers that JAX, which has 32 bits of them, would change.
    """
    tensor = ops.convert_to_tensor(labels)
    if ops.is_tensor(labels):
        return tensor
    labels, dtype = np.asarray(labels), keras.backend.standardize_dtype(tensor.dtype)
    if labels.size and labels.dtype.kind in "iu" and "int" in dtype:
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        if not least <= labels.min() <= labels.max() <= most:
            raise ValueError(
                f"{keras.backend.backend()} holds labels as {dtype}. Expected labels from {least} "
                f"to {most}. Received: {labels.min()} to {labels.max()}"
            )
    return tensor


def ranks(labels):
    """The rank of each label among the different ones of the batch, int32 of the same shape.

    They are in the same order, and exact where float32, to which Keras casts labels, is not.

    Args:
        labels: tensor of numbers.

    Example:

    >>> np.array(ranks(np.array([[2**24 + 1], [7], [2**24], [7]]))).tolist()
    [[2], [0], [1], [0]]
    """
    flat = ops.reshape(labels, (-1,))
    order = ops.argsort(flat)
    ordered = ops.take(flat, order)
    steps = ops.cast(ordered[1:] != ordered[:-1], "int32")
    found = ops.take(ops.cumsum(ops.pad(steps, [[1, 0]])), ops.argsort(order))
    return ops.reshape(found, ops.shape(labels))


def integer_labels(labels):
    """Labels as int32 indices that are in range only where they were before.

    Args:
        labels: tensor of integers or floats.

    Returns:
        int32 of the same shape: -1 for what is no integer, and for what is less; at most `FAR`.

    Example:

    >>> np.array(integer_labels(np.array([2.0, 0.5, np.nan, -7.0, 1e30]))).tolist()
    [2, -1, -1, -1, 1073741824]
    """
    if "float" in keras.backend.standardize_dtype(labels.dtype):
        labels = ops.where(_are_integers(labels), labels, -1.0)
    else:
        labels = ops.cast(labels, "int")  # what wraps around here is below 0
    return ops.cast(ops.clip(labels, -1, FAR), "int32")


def nan_unless_integers(labels, axis):
    """A factor of losses: a label that is no integer shows in value and gradient.

    A conversion alone would make NaN class 0 on one device and no class on another, and 1.5 class 1.

    Args:
        labels: tensor of integers or floats.
        axis: int or tuple, the axes that hold the labels of one loss.

    Returns:
        float32, 1 or NaN, of the shape of the labels without these axes; the number 1 for integers.

    Example:

    >>> np.array(nan_unless_integers(np.array([[2.0, -1.0], [0.5, 1.0]]), axis=1)).tolist()
    [1.0, nan]
    """
    if "float" not in keras.backend.standardize_dtype(labels.dtype):
        return 1.0
    return ops.where(ops.all(_are_integers(labels), axis=axis), 1.0, float("nan"))


def _are_integers(labels):
    return ops.logical_and(ops.isfinite(labels), ops.equal(labels, ops.floor(labels)))


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
            that hold integers (Keras casts labels to float32). A span with a number that is none
            is invalid.
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
    spans = integer_labels(spans)  # products of float32 indices would be inexact
    limits = ops.stack([heads, length, length])
    valid = ops.all(ops.logical_and(spans >= 0, spans < ops.cast(limits, "int32")), axis=-1)
    spans = ops.where(valid[..., None], spans, 0)
    return spans[..., 0], spans[..., 1], spans[..., 2], valid
