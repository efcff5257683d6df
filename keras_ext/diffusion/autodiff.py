"""Derivatives with respect to the noisy data, which Keras has no function for."""

import keras
from keras import ops


def pulled_back(function, x, has_aux=False):
    """What a function gives, and its products v^T J with the derivative.

    Works eagerly, in a graph, within loops, and under XLA.

    Args:
        function: function of x that gives one tensor.
        x: float32 tensor.
        has_aux: bool, whether the function gives a pair: the tensor, and tensors that are handed on.

    Returns:
        What the function gives, and a function `v -> v^T J`, of a v of that shape, which can be
        called again and again, and gives the shape of x. With `has_aux` the other tensors, too.

    Raises:
        ValueError: on a backend that is neither TensorFlow nor JAX; and by the second function, on
            TensorFlow, if no gradient reaches x, such as where the function computes in NumPy.

    Example:

    >>> x = keras.ops.convert_to_tensor([1.0, 2.0])
    >>> y, product = pulled_back(lambda x: x**2, x)
    >>> keras.ops.convert_to_numpy(product(keras.ops.ones(2))).tolist()
    [2.0, 4.0]
    """
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        y, product, *aux = jax.vjp(function, x, has_aux=has_aux)
        return y, lambda v: product(v)[0], *aux
    if backend != "tensorflow":
        raise ValueError(
            f"Expected the backend tensorflow or jax. Received: keras.config.backend()={backend!r}"
        )
    import tensorflow as tf

    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(x)
        y, *aux = function(x) if has_aux else (function(x),)

    def product(v):
        gradient = tape.gradient(y, x, output_gradients=v)
        if gradient is None:
            raise ValueError(
                "No gradient reaches the noisy data. Expected a function that computes in tensors "
                "from its first argument, not in NumPy. Received: a gradient of None"
            )
        return gradient

    return y, product, *aux


def input_gradient(function, x):
    """The gradient of a number for each sample, of which each depends on its own sample alone.

    Args:
        function: function `x -> (b,)`.
        x: (b, ...) float32.

    Returns:
        (b, ...) float32.

    Raises:
        ValueError: if the function gives another shape, and see `pulled_back`.

    Example:

    >>> x = keras.ops.convert_to_tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> gradient = input_gradient(lambda x: keras.ops.sum(x**2, axis=-1), x)
    >>> keras.ops.convert_to_numpy(gradient).tolist()
    [[2.0, 4.0], [6.0, 8.0]]
    """

    def numbers(x):
        values = ops.cast(ops.convert_to_tensor(function(x)), "float32")
        count = {values.shape[0], x.shape[0]} - {None} if len(values.shape) == 1 else ()
        if len(count) > 1 or len(values.shape) != 1:
            raise ValueError(
                "Expected one number for each sample, of shape (b,). "
                f"Received: shape={tuple(values.shape)}, for x of {tuple(x.shape)}"
            )
        return values

    values, product = pulled_back(numbers, x)
    return product(ops.ones_like(values))


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
        ValueError: see `pulled_back`.

    Example:

    >>> x = keras.ops.convert_to_tensor([[1.0, 2.0]])
    >>> unit = lambda i: keras.ops.one_hot([i], 2)
    >>> y, trace = value_and_trace(lambda x: x**3, x, unit, 2)
    >>> keras.ops.convert_to_numpy(trace).tolist()
    [15.0]
    """
    axes = tuple(range(1, len(x.shape)))
    y, product = pulled_back(function, x)

    def add(i, total):
        v = direction(i)
        return total + ops.sum(v * product(v), axis=axes)

    total = ops.zeros_like(ops.sum(y, axis=axes))
    if count == 1:  # no loop
        return y, add(0, total)
    return y, ops.fori_loop(0, count, add, total)


def value_and_derivative(function, t):
    """What a function of time gives, and its derivative, each row with respect to its own time.

    Works eagerly, in a graph, under XLA, and inside a function that is differentiated.

    Args:
        function: function `t -> (b, ...)`, each row of its own time alone.
        t: (b,) float32, or (b, 1, ...).

    Returns:
        f(t) and df / dt, (b, ...) each.

    Raises:
        ValueError: on a backend that is neither TensorFlow nor JAX; and, on TensorFlow, if the
            function does not depend on time, such as where it computes in NumPy.

    Example:

    >>> t = keras.ops.convert_to_tensor([1.0, 2.0])
    >>> value, slope = value_and_derivative(lambda t: t**3, t)
    >>> keras.ops.convert_to_numpy(slope).tolist()
    [3.0, 12.0]
    """
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        return jax.jvp(function, (t,), (ops.ones_like(t),))
    if backend != "tensorflow":
        raise ValueError(
            f"Expected the backend tensorflow or jax. Received: keras.config.backend()={backend!r}"
        )
    import tensorflow as tf

    with tf.autodiff.ForwardAccumulator(t, tf.ones_like(t)) as forward:
        value = function(t)
    slope = forward.jvp(value)
    if slope is None:
        raise ValueError(
            "The function does not depend on time. Expected one that computes in tensors from its "
            "argument, not in NumPy. Received: a derivative of None"
        )
    return value, slope
