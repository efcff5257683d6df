"""Whether a step's gradients can be used."""

from keras import ops

from keras_ext.optimizers.nested import innermost, side_by_side
from keras_ext.optimizers.replicas import squared_norm, sum_over_replicas


def all_finite(gradients, optimizer):
    """Whether a training step is good: squared norm of the gradients and learning rate are finite.

    An entry that is NaN or infinite makes the norm so, and entries beyond about 1e19, whose square
    is not a float32, do it too: they would ruin the second moments of Adam. The gradients of every
    replica count.

    Args:
        gradients: list of tensors, sparse gradients or None, of this replica.
        optimizer: a Keras optimizer, whose learning rate counts.

    Returns:
        Boolean scalar, the same on all replicas.
    """
    norms = [squared_norm(gradient) for gradient in gradients if gradient is not None]
    parts = side_by_side(innermost(optimizer))
    rates = [ops.cast(part.learning_rate, "float32") for part in parts]
    total = ops.sum(ops.stack([*norms, *rates]))
    (bad,) = sum_over_replicas([1.0 - ops.cast(ops.isfinite(total), "float32")])
    return ops.equal(bad, 0.0)
