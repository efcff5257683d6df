"""The only lines of the harness that depend on the backend: compile and differentiate."""

import keras

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    def compiled(function):
        """Compiles a function of tensors with XLA."""
        return tf.function(function, jit_compile=True, autograph=False)

    def value_and_gradients(function, tensors):
        """Calls `function(tensors) -> (scalar, value)`.

        Returns:
            The value, and the gradient of the scalar with respect to each tensor; 0 where there
            is no connection.
        """
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            scalar, value = function(tensors)
        gradients = tape.gradient(scalar, tensors, unconnected_gradients="zero")
        return value, [tf.convert_to_tensor(gradient) for gradient in gradients]

else:
    import jax

    def compiled(function):
        """Compiles a function of tensors with XLA."""
        return jax.jit(function)

    def value_and_gradients(function, tensors):
        """Calls `function(tensors) -> (scalar, value)`.

        Returns:
            The value, and the gradient of the scalar with respect to each tensor; 0 where there
            is no connection.
        """
        (_, value), gradients = jax.value_and_grad(function, has_aux=True)(tensors)
        return value, gradients
