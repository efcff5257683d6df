from keras import ops

from keras_ext.ops.products_with import products_with


def nearest_code(x, codebook):
    """The index of the code that lies nearest to each vector.

        z_i = argmin_c |x_i - e_c|^2 = argmin_c (|e_c|^2 - 2 x_i . e_c),   the lowest c of equals

    In float32 whatever comes in: in half precision the sum of squares and product merges codes that
    lie near each other. No gradient passes.

    Args:
        x: (..., n, d) vectors.
        codebook: (..., codes, d), whose leading axes broadcast with those of x: one codebook for all
            of them, or one a head.

    Returns:
        int32 (..., n), from 0 to codes - 1.

    Example:

    >>> import numpy as np
    >>> np.asarray(nearest_code(np.array([[0.2], [0.9]]), np.array([[0.0], [1.0]]))).tolist()
    [0, 1]
    """
    x = ops.stop_gradient(ops.cast(x, "float32"))
    codebook = ops.stop_gradient(ops.cast(codebook, "float32"))
    norms = ops.expand_dims(ops.sum(ops.square(codebook), -1), -2)
    return ops.cast(ops.argmin(norms - 2 * products_with(codebook, x), -1), "int32")
