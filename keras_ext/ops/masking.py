"""The one place that knows how a masked score looks in each dtype."""

import keras
from keras import ops

MASKED = -1e30
"""A masked score in float32 and bfloat16. Two of them still add up to a finite number."""

FLOAT16_MASKED = -65504.0
"""A masked score in float16: the lowest finite number of that dtype."""


def mask_value(dtype):
    """The score of a masked position in a floating point `dtype`.

    Finite in every dtype, so that no product or difference of masked scores is NaN.

    Args:
        dtype: name of a floating point dtype.

    Returns:
        A Python float: -65504 for float16, else -1e30.

    Example:

    >>> mask_value("bfloat16")
    -1e+30
    """
    dtype = keras.backend.standardize_dtype(dtype)
    if "float" not in dtype:
        raise ValueError(f"Only floating point scores can be masked. Received: dtype={dtype!r}")
    return FLOAT16_MASKED if dtype == "float16" else MASKED


def is_masked(scores):
    """True where a score is masked: equal to -65504 in float16, else at most -1e29.

    Args:
        scores: tensor of a floating point dtype, any shape.

    Returns:
        Boolean tensor of the same shape. NaN is not masked.

    Example:

    >>> import numpy as np
    >>> np.array(is_masked(np.array([-6e4, -1e30], "float32"))).tolist()
    [False, True]
    """
    scores = ops.convert_to_tensor(scores)
    if keras.backend.standardize_dtype(scores.dtype) == "float16":
        return ops.equal(scores, FLOAT16_MASKED)
    return ops.less_equal(scores, MASKED / 10)


def mask_scores(scores, mask):
    """`scores` where `mask` is true, the mask value of their dtype elsewhere.

    Args:
        scores: tensor of a floating point dtype, any shape.
        mask: boolean tensor that broadcasts to the shape of `scores`; true keeps.

    Returns:
        Tensor of the shape and dtype of `scores`.

    Example:

    >>> import numpy as np
    >>> scores = mask_scores(np.array([1.0, 2.0], "float32"), np.array([True, False]))
    >>> np.array(is_masked(scores)).tolist()
    [False, True]
    """
    scores = ops.convert_to_tensor(scores)
    value = ops.cast(mask_value(scores.dtype), scores.dtype)
    return ops.where(mask, scores, value)


def mask_bias(mask):
    """What, added to float32 scores, masks them: 0 where `mask` is true, -1e30 elsewhere.

    A sum costs less than the selection of `mask_scores` where the mask is smaller than the scores,
    and its gradient nothing.

    Args:
        mask: boolean tensor; true keeps.

    Returns:
        float32 tensor of the shape of `mask`.

    Example:

    >>> import numpy as np
    >>> bias = mask_bias(np.array([True, False]))
    >>> np.array(is_masked(np.array([1.0, 2.0], "float32") + bias)).tolist()
    [False, True]
    """
    return ops.where(mask, ops.cast(0.0, "float32"), ops.cast(MASKED, "float32"))


def float32_scores(scores):
    """Casts scores to float32 and carries their masked positions over.

    A plain cast would turn float16's mask value into the ordinary score -65504.

    Args:
        scores: tensor of a floating point dtype, any shape.

    Returns:
        float32 tensor of the same shape.

    Example:

    >>> import numpy as np
    >>> scores = float32_scores(np.array([1.0, -65504.0], "float16"))
    >>> np.array(is_masked(scores)).tolist()
    [False, True]
    """
    scores = ops.convert_to_tensor(scores)
    if keras.backend.standardize_dtype(scores.dtype) == "float16":
        return mask_scores(ops.cast(scores, "float32"), ops.logical_not(is_masked(scores)))
    return ops.cast(scores, "float32")


def masked_softmax(scores, mask=None, axis=-1):
    """Softmax over the positions where `mask` is true, computed in float32.

        p_i = exp(s_i) / sum_j exp(s_j),  i and j over the unmasked positions

    A row with no unmasked position gives 0, in value and in gradient, where the usual formula
    gives NaN (with -inf) or a uniform distribution (with a finite mask value).

    Args:
        scores: tensor of a floating point dtype, any shape.
        mask: boolean tensor that broadcasts to the shape of `scores`; true keeps. None keeps all.
        axis: int, the axis to normalise.

    Returns:
        Tensor of the shape and dtype of `scores`, 0 at masked positions.

    Example:

    >>> import numpy as np
    >>> scores = np.zeros((2, 3), "float32")
    >>> mask = np.array([[True, True, False], [False, False, False]])
    >>> np.array(masked_softmax(scores, mask)).tolist()
    [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """
    scores = ops.convert_to_tensor(scores)
    values = float32_scores(scores)
    if mask is not None:
        values = mask_scores(values, mask)
    probabilities = ops.softmax(values, axis=axis)
    if mask is not None:
        probabilities = ops.where(mask, probabilities, 0.0)
    return ops.cast(probabilities, scores.dtype)
