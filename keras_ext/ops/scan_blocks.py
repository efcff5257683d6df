import keras
from keras import ops, tree


def scan_blocks(step, state, blocks, shared, specs):
    """Goes through the blocks of a sequence with a state; the gradient computes each block again.

        state_g+1, output_g = step(state_g, block_g, shared),  g = 0, 1, ...

    Nothing that a step computes on the way is kept for the gradient but the states: memory grows
    by a state a block, not by all that a block needs.

    Args:
        step: function of a state, a block and `shared`, without side effects, that gives the next
            state, of the same shapes and dtypes, and an output.
        state: structure of tensors, the first state, which gets no gradient.
        blocks: structure of tensors (blocks, ...).
        shared: structure of tensors that every step gets.
        specs: structure of `keras.KerasTensor`, shape and dtype of the output of a step. Unknown
            sizes are None.

    Returns:
        The outputs, a structure of tensors (blocks, ...). What is floating point in `blocks` and
        `shared` gets their gradient.

    Example:

    >>> import numpy as np
    >>> step = lambda total, x, factor: (total + x, factor * total)
    >>> sums = scan_blocks(step, 0.0, np.float32([1, 2, 3]), 10.0, keras.KerasTensor(()))
    >>> np.asarray(sums).tolist()
    [0.0, 10.0, 30.0]
    """
    state, blocks, shared = tree.map_structure(ops.convert_to_tensor, (state, blocks, shared))
    if keras.config.backend() == "tensorflow":
        return _scan_in_tensorflow(step, state, blocks, shared, specs)
    recomputed = keras.remat(step)
    return ops.scan(lambda carry, block: recomputed(carry, block, shared), state, blocks)[1]


def _scan_in_tensorflow(step, first, blocks, shared, specs):
    """As `scan_blocks`. Not with `ops.scan`, whose gradient XLA cannot compile.

    The gradient is two more loops: one finds the state before each block again, one goes through
    the blocks from the last to the first. A loop takes one block at a time: by default TensorFlow
    works on ten at once.
    """
    import tensorflow as tf

    count = ops.shape(tree.flatten(blocks)[0])[0]

    def loop(body, *values):
        def as_before(i, *current):
            return i + 1, *tree.map_structure(_shaped_as, body(i, *current), current)

        start, fewer = (tf.constant(0), *values), lambda i, *_: i < count
        return tf.while_loop(fewer, as_before, start, parallel_iterations=1)[1:]

    def arrays(specs):
        return [tf.TensorArray(x.dtype, count, element_shape=x.shape) for x in tree.flatten(specs)]

    def written(into, i, structure):
        return [a.write(i, x) for a, x in zip(into, tree.flatten(structure), strict=True)]

    def stacked(arrays):
        """(count, ...) each; of a number that is known, the shape is, too."""
        found = [array.stack() for array in arrays]
        for x in found if isinstance(count, int) else ():
            x.set_shape((count, *x.shape[1:]))
        return found

    def at(structure, i):
        return tree.map_structure(lambda x: x[i], structure)

    @tf.custom_gradient
    def run(*inputs):
        blocks_, shared_ = tree.pack_sequence_as((blocks, shared), list(inputs))

        def forward(i, state, outputs):
            state, output = step(state, at(blocks_, i), shared_)
            return state, written(outputs, i, output)

        outputs = stacked(loop(forward, first, arrays(specs))[1])

        def gradient(*upstream):
            def find(i, state, states):
                return step(state, at(blocks_, i), shared_)[0], written(states, i, state)

            states = stacked(loop(find, first, arrays(first))[1])

            def backward(k, by_state, by_block, by_shared):
                i = count - 1 - k
                state = tree.pack_sequence_as(first, [x[i] for x in states])
                block = at(blocks_, i)
                sources = [_floats(x) for x in (state, block, shared_)]
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(sources)
                    after, output = step(state, block, shared_)
                parts = tape.gradient(
                    _floats(after) + tree.flatten(output),
                    sources,
                    [*by_state, *(x[i] for x in upstream)],
                    unconnected_gradients="zero",
                )
                by_shared = [total + part for total, part in zip(by_shared, parts[2], strict=True)]
                return parts[0], written(by_block, i, parts[1]), by_shared

            zeros = [[tf.zeros_like(x) for x in _floats(part)] for part in (first, shared_)]
            by_block = arrays([x[0] for x in _floats(blocks_)])
            _, by_block, by_shared = loop(backward, zeros[0], by_block, zeros[1])
            found = iter([*stacked(by_block), *by_shared])
            return [next(found) if x.dtype.is_floating else None for x in inputs]

        return outputs, gradient

    outputs = run(*tree.flatten((blocks, shared)))
    return tree.pack_sequence_as(specs, tree.flatten(outputs))


def _floats(structure):
    """The floating point tensors of a structure, in order."""
    return [x for x in tree.flatten(structure) if x.dtype.is_floating]


def _shaped_as(new, old):
    """A new value of a variable of a loop, of the static shape of the old."""
    if hasattr(old, "set_shape"):
        new.set_shape(old.shape)
    return new
