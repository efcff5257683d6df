"""A gate: one sequence, active, times another."""

import keras
from keras import ops


def gated_product(gate, x, activation):
    """`activation(gate) * x`, for the swish without a third array for the gradient.

    The gradient usually needs the gate, the active gate and `x`; the active gate is computed again
    here. For other activations it is the plain product.

    Args:
        gate: tensor.
        x: tensor of the same shape and dtype.
        activation: function.

    Returns:
        Tensor of that shape and dtype. It can be differentiated again.

    Example:

    >>> import numpy as np
    >>> one = np.ones(2, "float32")
    >>> np.array(gated_product(0 * one, one, keras.activations.silu)).tolist()
    [0.0, 0.0]
    """
    if activation is not keras.activations.silu:
        return activation(gate) * x

    @ops.custom_gradient
    def product(gate, x):
        def gradient(*arguments, upstream=None):
            if upstream is None:
                (upstream,) = arguments
            sigmoid = ops.sigmoid(gate)
            slope = sigmoid * (1 + gate * (1 - sigmoid))
            return upstream * x * slope, upstream * gate * sigmoid

        return ops.silu(gate) * x, gradient

    return product(gate, x)
