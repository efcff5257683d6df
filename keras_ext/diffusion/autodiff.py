"""Derivatives with respect to the noisy data, which Keras has no function for."""

import keras
from keras import ops


def input_gradient(function, x):
    """The gradient of a number for each sample, and what the function found on its way.

    The numbers are added up over the batch in float32; where each depends on its own sample alone,
    so does its gradient. Works eagerly, in a graph, within loops, and under XLA.

    Args:
        function: function `x -> (numbers (b,), other)`; `other` is any structure of tensors.
        x: (b, ...) float32.

    Returns:
        The gradient, (b, ...) float32, and `other`.

    Raises:
        ValueError: on a backend that is neither TensorFlow nor JAX; on TensorFlow if no gradient
            reaches x, such as where the function computes in NumPy; and for another shape.

    Example:

    >>> x = keras.ops.convert_to_tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> gradient, _ = input_gradient(lambda x: (keras.ops.sum(x**2, axis=-1), ()), x)
    >>> keras.ops.convert_to_numpy(gradient).tolist()
    [[2.0, 4.0], [6.0, 8.0]]
    """

    def total(x):
        numbers, other = function(x)
        numbers = ops.convert_to_tensor(numbers)
        if len(numbers.shape) != 1 or numbers.shape[0] not in (None, x.shape[0]) and x.shape[0]:
            raise ValueError(
                "Expected one number for each sample, of shape (b,). "
                f"Received: shape={tuple(numbers.shape)}, of x: {tuple(x.shape)}"
            )
        return ops.sum(ops.cast(numbers, "float32")), other

    if _is_tensorflow():
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            value, other = total(x)
        return _reached(tape.gradient(value, x)), other
    import jax

    (_, other), gradient = jax.value_and_grad(total, has_aux=True)(x)
    return gradient, other


def value_and_trace(function, x, direction, count):
    """A function of each sample, and products with its derivative J on both sides.

        sum_i v_i^T J v_i,  i = 0 ... count - 1

    With the unit vectors as v_i this is the trace of J, the divergence. The function is computed
    once, and differentiated backwards once a direction, of which one at a time is in memory.

    Args:
        function: function `x -> (b, ...)` of the shape of x, each row of its own sample alone.
        x: (b, ...) float32.
        direction: function `i -> (b, ...)` float32, v_i, of an int scalar.
        count: int, number of directions.

    Returns:
        (b, ...) what the function gives, and (b,) float32 the sum.

    Raises:
        ValueError: see `input_gradient`.

    Example:

    >>> x = keras.ops.convert_to_tensor([[1.0, 2.0]])
    >>> unit = lambda i: keras.ops.one_hot([i], 2)
    >>> y, trace = value_and_trace(lambda x: x**3, x, unit, 2)
    >>> keras.ops.convert_to_numpy(trace).tolist()
    [15.0]
    """
    axes = tuple(range(1, len(x.shape)))
    if _is_tensorflow():
        import tensorflow as tf

        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(x)
            y = function(x)

        def product(v):
            return _reached(tape.gradient(y, x, output_gradients=v))
    else:
        import jax

        y, pull_back = jax.vjp(function, x)

        def product(v):
            return pull_back(v)[0]

    def add(i, total):
        v = direction(i)
        return total + ops.sum(v * product(v), axis=axes)

    total = ops.zeros_like(ops.sum(y, axis=axes))
    if count == 1:  # no loop
        return y, add(0, total)
    return y, ops.fori_loop(0, count, add, total)


def _is_tensorflow():
    name = keras.config.backend()
    if name not in ("tensorflow", "jax"):
        raise ValueError(
            f"Expected the backend tensorflow or jax. Received: keras.config.backend()={name!r}"
        )
    return name == "tensorflow"


def _reached(gradient):
    if gradient is None:
        raise ValueError(
            "No gradient reaches the noisy data. Expected a function that computes in tensors from "
            "its first argument, not in NumPy. Received: a gradient of None"
        )
    return gradient
