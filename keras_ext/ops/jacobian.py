import keras
from keras import ops

FEW = 48


def value_and_jacobian(function, x, elementwise=False):
    """What a function of rows gives, and its derivative, a matrix for each row.

        J_i = d f(x_i) / d x_i

    The products with all unit vectors are computed at once, from one call of the function. Works
    eagerly, in a graph, within loops and under XLA.

    Args:
        function: function `(n, d) -> (n, d)`, each row of its own row alone.
        x: (n, d) float32 or float64.
        elementwise: bool, whether each number of the output depends on the same number of the input
            alone. Then the matrices are diagonal, and one product with ones gives all of them.

    Returns:
        (n, d), and (n, d, d), first the number of the output; with `elementwise` the diagonals
        (n, d). Zeros where the function does not depend on x.

    Raises:
        ValueError: on a backend that is neither TensorFlow nor JAX.

    Example:

    >>> x = keras.ops.convert_to_tensor([[1.0, 2.0]])
    >>> y, jacobian = value_and_jacobian(lambda x: x[:, :1] * x, x)
    >>> keras.ops.convert_to_numpy(jacobian)[0].tolist()
    [[2.0, 0.0], [2.0, 1.0]]
    """
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        y, product = jax.vjp(function, x)
        if elementwise:
            return y, product(ops.ones_like(y))[0]
        units = ops.broadcast_to(
            ops.eye(x.shape[-1], dtype=x.dtype)[:, None], (x.shape[-1], *x.shape)
        )
        return y, ops.swapaxes(jax.vmap(product)(units)[0], 0, 1)
    if backend != "tensorflow":
        raise ValueError(
            f"Expected the backend tensorflow or jax. Received: keras.config.backend()={backend!r}"
        )
    import tensorflow as tf

    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(x)
        y = function(x)
    zeros = tf.UnconnectedGradients.ZERO
    if elementwise:
        return y, tape.gradient(y, x, unconnected_gradients=zeros)
    # All at once they come from a new graph, which takes longer to make than few products alone.
    at_once = not tf.executing_eagerly() or x.shape[-1] > FEW
    return y, tape.batch_jacobian(y, x, zeros, experimental_use_pfor=at_once)
