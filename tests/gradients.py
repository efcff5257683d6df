"""Values and gradients in whichever backend runs the tests."""

import keras
import numpy as np
from keras import ops


def value_and_gradient(function, *arrays, compiled=False):
    """The value of `function(*arrays)` and the gradients of its sum, as NumPy arrays.

    Args:
        function: takes tensors, returns one tensor of any shape.
        *arrays: floating point arrays; each is differentiated.
        compiled: whether XLA compiles value and gradient. With JAX it always does, as in Keras'
            trainer: operation by operation takes far longer.
    """
    return differentiated(function, compiled)(*arrays)


def differentiated(function, compiled=False):
    """`value_and_gradient` of a function that is called again, and compiled once a shape."""
    if keras.backend.backend() == "jax":
        import jax

        def with_value(*tensors):
            value = function(*tensors)
            return value.astype("float32").sum(), value

        @jax.jit
        def both(*tensors):
            every = tuple(range(len(tensors)))
            gradients, value = jax.grad(with_value, argnums=every, has_aux=True)(*tensors)
            return value, gradients

    else:
        import tensorflow as tf

        def both(*tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                value = function(*tensors)
            unconnected = tf.UnconnectedGradients.ZERO
            return value, tape.gradient(value, tensors, unconnected_gradients=unconnected)

        both = tf.function(both, jit_compile=True) if compiled else both

    def as_arrays(*arrays):
        value, gradients = both(*map(ops.convert_to_tensor, arrays))
        return to_numpy(value), [to_numpy(gradient) for gradient in gradients]

    return as_arrays


def numerical_gradient(function, array, step=1e-5):
    """Central differences of the sum of `function`, which takes a float64 array."""
    array = array.astype("float64")
    gradient = np.zeros(array.shape)
    for index in np.ndindex(array.shape):
        shifted = array.copy()
        shifted[index] = array[index] + step
        above = np.sum(function(shifted))
        shifted[index] = array[index] - step
        gradient[index] = (above - np.sum(function(shifted))) / (2 * step)
    return gradient


def to_numpy(tensor):
    return ops.convert_to_numpy(tensor)


def relative_error(result, expected):
    """`max |difference| / max |expected|`."""
    expected = np.asarray(expected, "float64")
    return np.max(np.abs(result - expected)) / max(np.max(np.abs(expected)), 1e-30)
