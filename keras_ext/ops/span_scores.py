"""Scores of all (start, end) pairs of a sequence, kept as factors.

Efficient GlobalPointer scores the span from token i to token j for the entity type h as

    s_h(i, j) = q_i . k_j + a_h(i) + c_h(j)

The factored tensor (b, n, 2 * (head_size + heads)) holds, in this order, the query q, the key k,
the start biases a and the end biases c. Only q . k is quadratic in the length and it is the same
for all types, so sums over all pairs cost one (n, n) matrix, not one for each type.
"""

import keras
from keras import ops

from keras_ext.ops.masking import float32_scores, is_masked, mask_scores


def split_factors(factored, heads, head_size):
    """Takes the factored tensor apart.

    Args:
        factored: (b, n, 2 * (head_size + heads)), a tensor or a NumPy array.
        heads: int, the number of entity types.
        head_size: int, the width of query and key.

    Returns:
        query (b, n, head_size), key (b, n, head_size), start bias (b, n, heads) and end bias
        (b, n, heads).

    Raises:
        ValueError: if the last axis is not 2 * (head_size + heads).

    Example:

    >>> import numpy as np
    >>> [x.shape[-1] for x in split_factors(np.zeros((1, 5, 22)), heads=3, head_size=8)]
    [8, 8, 3, 3]
    """
    channels = 2 * (head_size + heads)
    if len(factored.shape) != 3 or factored.shape[-1] != channels:
        raise ValueError(
            f"Factored span scores of {heads} types with head_size {head_size} have the shape "
            f"(batch, length, {channels}). Received: shape={tuple(factored.shape)}"
        )
    query, key = factored[..., :head_size], factored[..., head_size : 2 * head_size]
    start_bias = factored[..., 2 * head_size : 2 * head_size + heads]
    end_bias = factored[..., 2 * head_size + heads :]
    return query, key, start_bias, end_bias


def float32_factors(factored, head_size):
    """Casts the factored tensor to float32 and carries the masked biases over.

    Args:
        factored: (b, n, 2 * (head_size + heads)) of a floating point dtype.
        head_size: int, the width of query and key, which hold numbers and never a mask.

    Returns:
        float32 tensor of the same shape.

    Example:

    >>> import numpy as np
    >>> factored = np.full((1, 1, 4), -65504.0, "float16")  # a padded token, head_size 1, one type
    >>> np.array(float32_factors(factored, head_size=1))[0, 0, 2] < -1e29
    np.True_
    """
    factored = ops.convert_to_tensor(factored)
    if keras.backend.standardize_dtype(factored.dtype) != "float16":
        return ops.cast(factored, "float32")
    split = 2 * head_size
    vectors, biases = factored[..., :split], factored[..., split:]
    return ops.concatenate([ops.cast(vectors, "float32"), float32_scores(biases)], axis=-1)


def valid_pairs(mask, tril_mask=True):
    """The pairs (start, end) that can be a span: two tokens, the start not after the end.

    Args:
        mask: boolean (b, n), true = token.
        tril_mask: bool, whether pairs with end < start are excluded.

    Returns:
        Boolean (b, n, n), axis 1 the start, axis 2 the end.

    Example:

    >>> import numpy as np
    >>> np.array(valid_pairs(np.array([[True, True, False]])))[0].astype(int).tolist()
    [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    """
    pairs = ops.logical_and(mask[:, :, None], mask[:, None, :])
    if tril_mask:
        pairs = ops.logical_and(pairs, upper_triangle(ops.shape(mask)[1]))
    return pairs


def upper_triangle(length):
    """Boolean (n, n), true where the row is not after the column."""
    positions = ops.arange(length)
    return positions[:, None] <= positions


def factored_mask(start_bias):
    """The padding mask that the biases of a factored tensor carry.

    Args:
        start_bias: float32 (b, n, heads), or the end biases.

    Returns:
        Boolean (b, n), true = token.

    Example:

    >>> import numpy as np
    >>> np.array(factored_mask(np.array([[[0.5], [-1e30]]], "float32"))).tolist()
    [[True, False]]
    """
    return ops.logical_not(is_masked(ops.max(start_bias, axis=-1)))


def dense_span_scores(factored, heads, head_size, tril_mask=True):
    """Builds the scores of all pairs for all types from their factors.

    Args:
        factored: (b, n, 2 * (head_size + heads)) float32.
        heads: int, the number of entity types.
        head_size: int, the width of query and key.
        tril_mask: bool, whether pairs with end < start are masked.

    Returns:
        (b, heads, n, n) float32, axis 2 the start, axis 3 the end; -1e30 at masked pairs.

    Example:

    >>> import numpy as np
    >>> factored = np.ones((1, 2, 6), "float32")  # one type, head_size 2
    >>> np.array(dense_span_scores(factored, heads=1, head_size=2))[0, 0, 0].tolist()
    [4.0, 4.0]
    """
    query, key, start_bias, end_bias = split_factors(factored, heads, head_size)
    pairs = ops.matmul(query, ops.transpose(key, (0, 2, 1)))  # (b, n, n)
    starts = ops.transpose(start_bias, (0, 2, 1))[:, :, :, None]  # (b, heads, n, 1)
    ends = ops.transpose(end_bias, (0, 2, 1))[:, :, None, :]  # (b, heads, 1, n)
    scores = pairs[:, None] + starts + ends  # (b, heads, n, n)
    return mask_scores(scores, valid_pairs(factored_mask(start_bias), tril_mask)[:, None])
