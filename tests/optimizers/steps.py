"""Compiled steps of an optimizer on both backends, with gradients that the tests choose."""

import keras
import numpy as np

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    def stepper(optimizer, variables, jit_compile=False):
        """A function that makes a step with a list of gradients, compiled.

        A gradient is an array, None, or a tuple of rows and their indices: a sparse one.
        """
        optimizer.build(variables)
        shapes = [variable.shape for variable in variables]

        @tf.function(autograph=False, jit_compile=jit_compile)
        def step(gradients):
            sparse = [
                tf.IndexedSlices(*gradient, shape) if isinstance(gradient, tuple) else gradient
                for gradient, shape in zip(gradients, shapes, strict=True)
            ]
            optimizer.apply(sparse)

        return lambda gradients: step(keras.tree.map_structure(tensor, gradients))

    def tensor(array):
        return None if array is None else tf.constant(array)

else:
    import jax

    def stepper(optimizer, variables, jit_compile=False):
        """The same in JAX, which always compiles, and where every gradient is dense."""
        optimizer.build(variables)
        stateless = jax.jit(optimizer.stateless_apply)

        def step(gradients):
            dense = [
                np.zeros(variable.shape, "float32") if isinstance(gradient, tuple) else gradient
                for gradient, variable in zip(gradients, variables, strict=True)
            ]
            for total, gradient in zip(dense, gradients, strict=True):
                if isinstance(gradient, tuple):
                    np.add.at(total, gradient[1], gradient[0])
            new = stateless(
                [v.value for v in optimizer.variables], dense, [v.value for v in variables]
            )
            for variable, value in zip(
                [*variables, *optimizer.variables], sum(new, []), strict=True
            ):
                variable.assign(value)

        return step


def values(variables):
    """The values of variables, in NumPy."""
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def all_equal(some, others):
    """Whether two lists of arrays are equal to the bit."""
    pairs = zip(some, others, strict=True)
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)
