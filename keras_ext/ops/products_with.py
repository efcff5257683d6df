from keras import ops


def products_with(table, x):
    """The inner products of vectors with all rows of a table.

        y_im = x_i . t_m

    What `ops.matmul` gives, and what it should: TensorFlow's kernel of oneDNN writes beyond its
    memory for (b, 1, n, d) by (1, d, m) or (d, m), and the process ends. One table for all vectors
    is one product of two matrices here.

    Args:
        table: (..., m, d), whose leading axes broadcast with those of x.
        x: (..., n, d).

    Returns:
        (..., n, m).

    Example:

    >>> import numpy as np
    >>> np.asarray(products_with(np.eye(2), np.array([[3.0, 4.0]]))).tolist()
    [[3.0, 4.0]]
    """
    table, x = ops.convert_to_tensor(table), ops.convert_to_tensor(x)
    if any(size != 1 for size in table.shape[:-2]):
        return ops.matmul(x, ops.swapaxes(table, -1, -2))
    rows, size = table.shape[-2:]
    table = ops.reshape(table, (rows, size))
    products = ops.matmul(ops.reshape(x, (-1, size)), ops.transpose(table))
    return ops.reshape(products, (*ops.shape(x)[:-1], rows))
