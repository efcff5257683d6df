"""The hidden states of tokens as one vector of the text."""

from keras import ops

from keras_ext.ops.masking import mask_scores

POOLINGS = ("mean", "cls", "max", "last")


def pool(hidden, mask=None, mode="mean"):
    """One vector for each row of hidden states, of its tokens alone.

        mean:  sum_i m_i h_i / sum_i m_i
        cls:   h_i of the first i with m_i = 1
        max:   max over i with m_i = 1, component by component
        last:  h_i of the last i with m_i = 1

    Padding changes nothing. A row without tokens gives 0.

    Args:
        hidden: tensor (..., n, d) of a floating point dtype.
        mask: boolean tensor (..., n), true = token. None: all are tokens.
        mode: "mean", "cls", "max" or "last".

    Returns:
        float32 tensor (..., d): the mean of half-precision vectors is no half-precision vector.

    Raises:
        ValueError: for another mode.

    Example:

    >>> import numpy as np
    >>> hidden = np.array([[[1.0], [3.0], [100.0]]], "float32")
    >>> mask = np.array([[True, True, False]])
    >>> [float(pool(hidden, mask, mode)[0, 0]) for mode in ("mean", "cls", "max", "last")]
    [2.0, 1.0, 3.0, 3.0]
    """
    if mode not in POOLINGS:
        raise ValueError(f"The pooling is one of {POOLINGS}. Received: {mode=}")
    hidden = ops.convert_to_tensor(hidden)
    mask = ops.ones(ops.shape(hidden)[:-1], "bool") if mask is None else ops.cast(mask, "bool")
    if mode == "mean":
        # What stands at padding is replaced, not multiplied by 0: it may be NaN.
        tokens = ops.where(mask[..., None], ops.cast(hidden, "float32"), 0.0)
        count = ops.sum(ops.cast(mask, "float32"), axis=-1, keepdims=True)
        return ops.sum(tokens, axis=-2) / ops.maximum(count, 1.0)
    if mode == "max":
        pooled = ops.max(mask_scores(hidden, mask[..., None]), axis=-2)
    else:
        tokens = ops.cast(mask, "int32")
        if mode == "cls":
            place = ops.argmax(tokens, axis=-1)  # the first of the largest
        else:
            place = ops.max(ops.arange(ops.shape(hidden)[-2], dtype="int32") * tokens, axis=-1)
        pooled = ops.take_along_axis(hidden, place[..., None, None], axis=-2)[..., 0, :]
    return ops.where(ops.any(mask, axis=-1, keepdims=True), ops.cast(pooled, "float32"), 0.0)
