"""Sequences of vectors as the rows of one matrix."""

import keras
from keras import ops


def as_rows(x):
    """A batch of sequences as the rows of one matrix, where that makes products faster.

    TensorFlow fuses the product of a matrix with a bias and an activation, of a batch it does not.
    In float16 it stays a batch: on a CPU the fused product takes 300 times as long there.

    Args:
        x: (b, n, d).

    Returns:
        (b * n, d), or `x` in float16.

    Example:

    >>> import numpy as np
    >>> tuple(as_rows(np.ones((2, 3, 4), "float32")).shape)
    (6, 4)
    """
    x = ops.convert_to_tensor(x)
    if keras.backend.standardize_dtype(x.dtype) == "float16":
        return x
    return ops.reshape(x, (-1, x.shape[-1]))


def project_rows(dense, x):
    """What a dense layer makes of a batch of sequences, taken as one matrix of rows.

    Args:
        dense: a built `keras.layers.Dense`.
        x: (b, n, d).

    Returns:
        (b, n, units).

    Example:

    >>> import numpy as np
    >>> tuple(project_rows(keras.layers.Dense(5), np.ones((2, 3, 4), "float32")).shape)
    (2, 3, 5)
    """
    output = dense(as_rows(x))
    batch, length = ops.shape(x)[:2]
    return ops.reshape(output, (batch, length, output.shape[-1]))
