"""Loops over chunks that keep the vectors, and compute all else again for the gradient."""

import keras
from keras import ops


def encode_chunks(steps, weights, state, count, specs):
    """The vectors of `count` chunks of every view; their gradient holds one chunk at a time.

    Forward, a loop keeps nothing but the vectors. For the gradient, a second loop over the same
    chunks, from the same state (so with the same random numbers), computes the vectors of a chunk
    h_k again and adds up what the gradient G of the vectors means for the weights:

        dL/dw = sum_k d/dw sum(h_k * G_k)

    Args:
        steps: list of functions without side effects, one a view, `(index, weights, state) ->
            (vectors, state)`, of the index of a chunk, to vectors (c, d) and the state after it.
        weights: list of tensors, what the vectors are differentiated with respect to.
        state: list of tensors, all that the steps change.
        count: int, number of chunks; in TensorFlow a scalar tensor will do.
        specs: list of `keras.KerasTensor`, (c, d) and the dtype of the vectors of each step.

    Returns:
        A list of tensors (count, c, d), one a view, and the state after the last step.
    """
    if keras.config.backend() == "tensorflow":
        return _encode_in_tensorflow(steps, weights, state, count, specs)
    vectors = []
    for step in steps:
        scanned = keras.remat(lambda state, index, step=step: step(index, weights, state)[::-1])
        state, outputs = ops.scan(scanned, state, ops.arange(count))
        vectors.append(outputs)
    return vectors, state


def _encode_in_tensorflow(steps, weights, state, count, specs):
    """As `encode_chunks`. Not with `ops.scan`, whose gradient XLA cannot compile.

    One chunk at a time: by default, TensorFlow works on ten iterations of a loop at once, which
    took three times the memory. And the loop over a view waits for that over the view before, which
    is not so by itself where encoders are separate.
    """
    import tensorflow as tf

    def loop(body, values):
        start = (tf.constant(0), *values)
        return tf.while_loop(lambda i, *_: i < count, body, start, parallel_iterations=1)[1:]

    @tf.custom_gradient
    def encode(*weights):
        vectors, current = [], state
        for step, spec in zip(steps, specs, strict=True):

            def forward(index, array, current, step=step):
                outputs, current = step(index, weights, current)
                return index + 1, array.write(index, outputs), current

            with tf.control_dependencies(vectors[-1:]):
                array = tf.TensorArray(spec.dtype, count, element_shape=spec.shape)
                array, current = loop(forward, (array, current))
            vectors.append(array.stack())

        def gradients(*upstream):
            sums, current, used = [tf.zeros_like(weight) for weight in weights], state, set()
            for step, upper in zip(steps, upstream, strict=False):  # the state has no gradient

                def backward(index, sums, current, step=step, upper=upper):
                    with tf.GradientTape(watch_accessed_variables=False) as tape:
                        tape.watch(weights)
                        outputs, current = step(index, weights, current)
                    parts = tape.gradient(outputs, weights, upper[index])
                    used.update(i for i, part in enumerate(parts) if part is not None)
                    sums = [_sum(total, part) for total, part in zip(sums, parts, strict=True)]
                    return index + 1, sums, current

                with tf.control_dependencies(sums):
                    sums, current = loop(backward, (sums, current))
            # None for a weight that the vectors do not depend on, as without chunks.
            return [total if i in used else None for i, total in enumerate(sums)]

        return (*vectors, *current), gradients

    outputs = encode(*weights)
    return list(outputs[: len(steps)]), list(outputs[len(steps) :])


def _sum(total, part):
    """A dense tensor plus a gradient, which may be None or that of an embedding."""
    import tensorflow as tf

    if part is None:
        return total
    if isinstance(part, tf.IndexedSlices):
        return tf.tensor_scatter_nd_add(total, part.indices[:, None], part.values)
    return total + part
