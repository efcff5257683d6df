"""The only lines of the harness that depend on the backend: compile and differentiate."""

import keras

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    def compiled(function):
        """Compiles a function of tensors with XLA."""
        return tf.function(function, jit_compile=True, autograph=False)

    def quickest(function):
        """The function as it runs once in the least time: eagerly."""
        return function

    def specs(function, *arguments):
        """What has the shapes and dtypes of the outputs: here the outputs themselves."""
        return function(*arguments)

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

    def rows_gradient(values, indices, shape):
        """The gradient of a table: sparse, as that of an `Embedding` is."""
        return tf.IndexedSlices(tf.constant(values), tf.constant(indices), tf.constant(shape))

    def compiled_step(optimizer, variables):
        """A step of an optimizer, compiled with XLA: a function of gradients."""

        def step(gradients):
            optimizer.apply(gradients, variables)

        return tf.function(step, jit_compile=True, autograph=False)

else:
    import jax

    def compiled(function):
        """Compiles a function of tensors with XLA."""
        return jax.jit(function)

    quickest = compiled
    """Eagerly, JAX compiles each operation for each shape, which takes ten times as long."""

    specs = jax.eval_shape

    def value_and_gradients(function, tensors):
        """Calls `function(tensors) -> (scalar, value)`.

        Returns:
            The value, and the gradient of the scalar with respect to each tensor; 0 where there
            is no connection.
        """
        (_, value), gradients = jax.value_and_grad(function, has_aux=True)(tensors)
        return value, gradients

    def rows_gradient(values, indices, shape):
        """The gradient of a table, which is dense in JAX."""
        return jax.numpy.zeros(shape, values.dtype).at[indices].add(values)

    def compiled_step(optimizer, variables):
        """A step of an optimizer, compiled with XLA: a function of gradients."""
        stateless = jax.jit(optimizer.stateless_apply)

        def step(gradients):
            slots, weights = ([v.value for v in part] for part in (optimizer.variables, variables))
            weights, slots = stateless(slots, gradients, weights)
            state = [*variables, *optimizer.variables]
            for variable, value in zip(state, [*weights, *slots], strict=True):
                variable.assign(value)

        return step
