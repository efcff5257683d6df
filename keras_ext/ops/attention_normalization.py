"""How scores of attention become weights: softmax, and the two normalizations of GAU."""

import math

from keras import ops

from keras_ext.ops.masking import float32_scores, masked_softmax

NORMALIZATIONS = ("softmax", "softmax_plus", "squared_relu")


def normalize_attention(scores, mask=None, method="softmax"):
    """The weights with which a query gathers from its visible keys, computed in float32.

        softmax:       w_j = exp(s_j) / sum_k exp(s_k)
        softmax_plus:  the softmax of s_j * log(max(l, 16)) / log(512)
        squared_relu:  w_j = max(s_j, 0)^2 / l

    with j and k over the visible keys and l their number. The factor of `softmax_plus` holds the
    entropy of the weights where it would grow with l; it is 1 at 512 keys. The weights of
    `squared_relu` do not add up to 1.

    A row with no visible key gives 0, in value and in gradient. A key that is not visible may
    have any score, even NaN.

    Args:
        scores: tensor of a floating point dtype, (..., n, m): n queries, m keys.
        mask: boolean tensor that broadcasts to the shape of `scores`; true = visible. Only this
            counts for l, a low score does not hide its key. None: all are visible.
        method: "softmax", "softmax_plus" or "squared_relu".

    Returns:
        float32 tensor of the shape of `scores`, 0 where a key is not visible.

    Raises:
        ValueError: for an unknown `method`.

    Example:

    >>> import numpy as np
    >>> scores = np.array([[2.0, -1.0, 4.0]], "float32")
    >>> mask = np.array([[True, True, False]])
    >>> np.array(normalize_attention(scores, mask, "squared_relu")).tolist()
    [[2.0, 0.0, 0.0]]

    Source: Weizhe Hua et al., Transformer Quality in Linear Time, 2022,
    https://arxiv.org/abs/2202.10447 (squared_relu); Jianlin Su, the scale of attention seen from
    the invariance of entropy, 2021, https://kexue.fm/archives/8823 (softmax_plus)
    """
    if method not in NORMALIZATIONS:
        raise ValueError(
            f"Unknown normalization of attention, expected one of {NORMALIZATIONS}. "
            f"Received: {method=}"
        )
    scores = float32_scores(scores)
    if method == "softmax":
        return masked_softmax(scores, mask)
    keys = _visible_keys(scores, mask)
    if method == "softmax_plus":
        # The entropy of short rows is low without help.
        factor = ops.log(ops.maximum(keys, 16.0)) / math.log(512.0)
        return masked_softmax(scores * factor, mask)
    if mask is not None:
        scores = ops.where(mask, scores, 0.0)
    return ops.square(ops.relu(scores)) / ops.maximum(keys, 1.0)


def _visible_keys(scores, mask):
    """The number of visible keys of each row, float32, (..., 1)."""
    size = ops.shape(scores)[-1]
    if mask is None:
        return ops.cast(size, "float32")
    # One column of the mask may stand for all keys.
    mask = ops.logical_and(mask, ops.ones((size,), "bool"))
    return ops.sum(ops.cast(mask, "float32"), axis=-1, keepdims=True)
