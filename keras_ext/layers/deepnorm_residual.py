import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_ext")
class DeepNormResidual(keras.layers.Layer):
    """Adds a branch to an enlarged residual and normalises the sum.

        output = LN(alpha * x + f) = (y - mean(y)) / sqrt(variance(y) + epsilon) * gamma + beta

    with y = alpha * x + f. An alpha of 1 is the post-norm of the original transformer. Sum and
    statistics are float32 whatever the compute dtype. Weights in the order beta, gamma
    (bert4keras' order); the layer has only those that it uses.

    Args:
        alpha: float, above 0. `deepnorm_constants` gives it, and the gain that the kernels of the
            branch begin with.
        epsilon: float, added to the variance. Defaults to 1e-5.
        scale: bool, whether to multiply by `gamma`. Defaults to True.
        offset: bool, whether to add `beta`. Defaults to True.

    Call arguments:
        inputs: list of the residual x and the branch f, (..., d) each.

    Returns:
        (..., d) in the compute dtype.

    Raises:
        ValueError: for an alpha that is not above 0, or inputs that are not two of one shape.

    Example:

    >>> import numpy as np
    >>> x, f = np.array([[1.0, 2.0]]), np.array([[0.5, -0.5]])
    >>> np.array(DeepNormResidual(alpha=3.0)([x, f])).round(3).tolist()
    [[-1.0, 1.0]]

    Source: Hongyu Wang et al., DeepNet: Scaling Transformers to 1,000 Layers, 2022,
    https://arxiv.org/abs/2203.00555
    """

    def __init__(self, alpha, epsilon=1e-5, scale=True, offset=True, **kwargs):
        super().__init__(**kwargs)
        if not 0 < alpha < math.inf:
            raise ValueError(f"Expected an alpha above 0. Received: {alpha=}")
        self.alpha = alpha
        self.epsilon = epsilon
        self.scale = scale
        self.offset = offset
        self.supports_masking = True
        self.autocast = False

    def build(self, input_shape):
        shape = joined_shape(input_shape)[-1:]
        # Without autocast they stay float32, as the statistics.
        self.beta = self.gamma = None
        if self.offset:
            self.beta = self.add_weight(shape, initializer="zeros", name="beta", autocast=False)
        if self.scale:
            self.gamma = self.add_weight(shape, initializer="ones", name="gamma", autocast=False)

    def call(self, inputs):
        x, branch = (ops.cast(part, "float32") for part in inputs)
        y = ops.layer_normalization(
            self.alpha * x + branch, self.gamma, self.beta, -1, self.epsilon
        )
        return ops.cast(y, self.compute_dtype)

    def compute_mask(self, inputs, mask=None):
        return first_mask(mask)

    def compute_output_shape(self, input_shape):
        return joined_shape(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "epsilon": self.epsilon,
            "scale": self.scale,
            "offset": self.offset,
        }


def joined_shape(input_shape):
    """The shape of a residual and of its branch, as far as one of them is known.

    Raises:
        ValueError: unless these are two shapes that agree where both are known.
    """
    ranks = [len(shape) for shape in input_shape if isinstance(shape, (list, tuple))]
    pair = len(input_shape) == len(ranks) == 2 and ranks[0] == ranks[1]
    axes = list(zip(*input_shape, strict=True)) if pair else []
    if not pair or any(None not in (x, branch) and x != branch for x, branch in axes):
        raise ValueError(
            "Expected a list of a residual and a branch of the same shape. "
            f"Received: {input_shape=}"
        )
    return tuple(branch if x is None else x for x, branch in axes)


def first_mask(mask):
    """Of the masks of a residual and a branch, the first that there is."""
    return next((part for part in mask or () if part is not None), None)
