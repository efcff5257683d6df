"""Biases of attention scores by lag, the distance of a query from a key, as tables of all lags."""

from keras import ops

from keras_ext.ops.rotary import rotary_angles


def toeplitz_biases(table, longest, sign):
    """A number for each lag and head.

    Args:
        table: (h, 1, lags), for lags of 0, ..., L or of -L, ..., L.
        longest: int, L.
        sign: 1 or -1.

    Returns:
        Dict of `lag_bias` (h, 1, L + 1), for the lags L, L - 1, ..., 0 times the sign.
    """
    size = longest + 1
    return {"lag_bias": table[..., :size] if sign < 0 else ops.flip(table[..., -size:], -1)}


def xl_biases(kernel, query, longest, sign):
    """A vector for each lag and head, that products with queries are taken of (Transformer-XL).

        bias_i(l) = (q_i + query) . lag_key(l),  lag_key(l) = sinusoids(l) kernel / size^(1/4)

    Args:
        kernel: (channels, h * size).
        query: (h, 1, size), what is added to all queries.
        longest: int, L.
        sign: 1 or -1.

    Returns:
        Dict of `lag_key` (h, L + 1, size), for the lags L, L - 1, ..., 0 times the sign, and of
        `lag_query`, the query.

    Source: Zihang Dai et al., Transformer-XL: Attentive Language Models beyond a Fixed-Length
    Context, 2019, https://arxiv.org/abs/1901.02860
    """
    heads, _, size = query.shape
    angles = rotary_angles(sign * ops.arange(longest, -1, -1), kernel.shape[0])
    sinusoids = ops.cast(ops.concatenate((ops.sin(angles), ops.cos(angles)), -1), kernel.dtype)
    keys = ops.reshape(ops.matmul(sinusoids, kernel) * size**-0.25, (longest + 1, heads, size))
    return {"lag_key": ops.transpose(keys, (1, 0, 2)), "lag_query": query}
