"""How scores of attention become weights: softmax, and the two normalizations of GAU."""

import math

from keras import ops

from keras_ext.ops.masking import masked_softmax

NORMALIZATIONS = ("softmax", "softmax_plus", "squared_relu")


def score_factor(keys, method="softmax", length=None, power=1):
    """By what a normalization multiplies the scores of a row, given what the row sees.

        softmax: 1;  softmax_plus: log(max(l, 16)) / log(512);  squared_relu: l^(-power / 2)

    The factor of `softmax_plus` holds the entropy of the weights where it would grow with l; it is
    1 at 512 keys. Multiplying the queries by it costs less than multiplying the scores.

    Args:
        keys: float32 tensor, l, the number of keys that each query sees.
        method: "softmax", "softmax_plus" or "squared_relu".
        length: number in place of l, for `squared_relu`, or None.
        power: number, 1, or 2 as in the paper, for `squared_relu`.

    Returns:
        float32 tensor of the shape of `keys`, or a number.

    Example:

    >>> float(score_factor(512.0, "softmax_plus"))
    1.0

    Source: Weizhe Hua et al., Transformer Quality in Linear Time, 2022,
    https://arxiv.org/abs/2202.10447 (squared_relu); Jianlin Su, the scale of attention seen from
    the invariance of entropy, 2021, https://kexue.fm/archives/8823 (softmax_plus)
    """
    if method == "softmax":
        return 1.0
    if method == "softmax_plus":
        # The entropy of short rows is low without help.
        return ops.log(ops.maximum(keys, 16.0)) / math.log(512.0)
    length = ops.maximum(keys, 1.0) if length is None else float(length)
    return length ** (-power / 2)


def weigh_scores(scores, mask=None, method="softmax"):
    """The weights of scores that have been multiplied by `score_factor`.

        softmax, softmax_plus:  w_j = exp(s_j) / sum_k exp(s_k);  squared_relu:  w_j = max(s_j, 0)^2

    with j and k over the visible keys. The weights of `squared_relu` do not add up to 1. A row with
    no visible key gives 0, in value and in gradient. A key that is not visible may have any score,
    even NaN; a low score does not hide its key.

    Args:
        scores: float32 tensor, (..., n, m).
        mask: boolean tensor that broadcasts to the shape of `scores`; true = visible, or None.
        method: "softmax", "softmax_plus" or "squared_relu".

    Returns:
        float32 tensor of the shape of `scores`, 0 where a key is not visible.

    Example:

    >>> import numpy as np
    >>> np.array(weigh_scores(np.array([[2.0, -1.0]], "float32"), None, "squared_relu")).tolist()
    [[4.0, 0.0]]
    """
    if method != "squared_relu":
        return masked_softmax(scores, mask)
    if mask is not None:
        scores = ops.where(mask, scores, 0.0)
    return ops.square(ops.relu(scores))
