"""Channels as heads and back, and the length that queries and keys have in them."""

from keras import ops


def split_heads(x, heads, dtype):
    """(b, n, heads * size) as (b, heads, n, size), in a dtype."""
    batch, length, width = ops.shape(x)
    x = ops.reshape(ops.cast(x, dtype), (batch, length, heads, width // heads))
    return ops.transpose(x, (0, 2, 1, 3))


def join_heads(x, dtype):
    """(b, heads, n, size) as (b, n, heads * size), in a dtype."""
    batch, heads, length, size = ops.shape(x)
    x = ops.transpose(x, (0, 2, 1, 3))
    return ops.cast(ops.reshape(x, (batch, length, heads * size)), dtype)


def normalize_head(x):
    """Vectors of mean 0, and of length d^(1/4): then the products of two are at most d^(1/2).

        y = (x - mean(x)) / sqrt(variance(x) + 1e-6) / d^(1/4)

    Example:

    >>> import numpy as np
    >>> y = np.asarray(normalize_head(np.float32([[3, 1, 3, 1]])))
    >>> [f"{each:.2f}" for each in y[0]]
    ['0.71', '-0.71', '0.71', '-0.71']
    """
    centred = x - ops.mean(x, -1, keepdims=True)
    variance = ops.mean(ops.square(centred), -1, keepdims=True)
    return centred * ops.rsqrt(variance + 1e-6) * x.shape[-1] ** -0.25
