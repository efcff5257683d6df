"""Scores of attention: products of queries and keys, turned by their positions."""

from keras import ops

from keras_ext.ops.rotary import apply_rotary


def attention_scores(query, key, rope=False, positions=None, window=None, slope=0.0, causal=False):
    """How well each query matches each key.

        score_ij = q_i . k_j                          without `rope`
        score_ij = (R_a q_i) . k_j,  a = p_i - p_j    with `rope`

    R_a turns by the angles of a. With a `window` w, distances grow no more beyond it, or slower
    (ReRoPE, leaky ReRoPE), so that no distance is one that was never seen in training:

        a = sign(p_i - p_j) (w + slope (|p_i - p_j| - w))  where  |p_i - p_j| >= w

    That takes a second product of all queries and keys, and a third unless `causal`.

    Args:
        query: (b, n, size) or (b, n, heads, size), scaled.
        key: (b, m, size) or (b, m, heads, size).
        rope: bool, whether to turn; `size` is then even.
        positions: (n,) or (b, n), integers or floats, for queries and keys. None: 0, 1, 2, ...
        window: number above 0, or None.
        slope: number in [0, 1): 0 is ReRoPE, 1 / k leaky ReRoPE.
        causal: bool: the scores of later keys will not be looked at. Positions must not fall.

    Returns:
        float32 (b, n, m) or (b, heads, n, m).

    Example:

    >>> import numpy as np
    >>> x = np.ones((1, 4, 2), "float32")
    >>> scores = np.array(attention_scores(x, x, rope=True, window=2))[0]
    >>> [f"{score:.2f}" for score in scores[0]]
    ['2.00', '1.08', '-0.83', '-0.83']

    Source: Jianlin Su, ReRoPE, rectified rotary position embedding, 2023,
    https://kexue.fm/archives/9708
    """

    if not rope:
        return _products(query, key)

    def scores(turn_query, turn_key):
        return _products(apply_rotary(query, turn_query), apply_rotary(key, turn_key))

    near = scores(positions, positions)
    if window is None:
        return near
    if positions is None:
        rows, columns = (ops.arange(ops.shape(x)[1], dtype="float32") for x in (query, key))
    else:
        rows = columns = ops.cast(positions, "float32")
    shift = window * (1.0 - slope)
    distance = ops.expand_dims(rows, -1) - ops.expand_dims(columns, -2)  # (n, m) or (b, n, m)
    if len(distance.shape) == 3 and len(query.shape) == 4:
        distance = ops.expand_dims(distance, 1)
    before = scores(slope * rows + shift, slope * columns)
    result = ops.where(distance >= window, before, near)
    if causal:
        return result
    return ops.where(distance <= -window, scores(slope * rows - shift, slope * columns), result)


def _products(query, key):
    """The products of all queries with all keys."""
    # Rounded to bfloat16, a score of 20 would be off by up to 0.06, its weight by 6 %.
    query, key = ops.cast(query, "float32"), ops.cast(key, "float32")
    if len(query.shape) == 4:  # heads go before the time
        query, key = ops.transpose(query, (0, 2, 1, 3)), ops.transpose(key, (0, 2, 1, 3))
    axes = (0, 1, 3, 2) if len(query.shape) == 4 else (0, 2, 1)
    return ops.matmul(query, ops.transpose(key, axes))
