import math

import keras
from keras import ops

from keras_ext.ops import smooth_leaky_relu
from keras_ext.ops.settings import number


@keras.saving.register_keras_serializable(package="keras_ext")
class SAU(keras.layers.Layer):
    """Smooth activation unit: a leaky ReLU convolved with a normal density, both learned.

        output = integral f(y) phi((x - y) / s) / s dy,   f(y) = max(y, a y)
               = a x + (1 - a) (x Phi(x / s) + s phi(x / s))

    with a the slope below 0, and s the width of the density, s = softplus(r) + 0.0001 for a weight
    r, so that it stays above 0. One of each for the layer. GELU, x Phi(x), is another function: it
    lacks the second term. Computed in float32 whatever the compute dtype.

    Args:
        negative_slope: float, a in the beginning. Defaults to 0.25.
        width: float above 0.0001, s in the beginning. Defaults to 1.
        **kwargs: of `keras.layers.Layer`; with `trainable=False` both stay.

    Call arguments:
        inputs: (...), floats.

    Returns:
        (...) in the compute dtype.

    Raises:
        ValueError: for a width of 0.0001 or below, or numbers that are not finite.

    Example:

    >>> import numpy as np
    >>> layer = SAU(negative_slope=0.1, width=0.5)
    >>> [f"{y:.4f}" for y in np.asarray(layer(np.array([-9.0, 0.0, 9.0], "float32")))]
    ['-0.9000', '0.1795', '9.0000']

    Source: Koushik Biswas et al., SAU: Smooth activation function using convolution with
    approximate identities, 2021, https://arxiv.org/abs/2109.13210
    """

    least = 1e-4
    """The width that is never gone below."""

    def __init__(self, negative_slope=0.25, width=1.0, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.negative_slope = number("negative_slope", negative_slope)
        self.width = number("width", width)
        if self.width <= self.least:
            raise ValueError(f"Expected a width above {self.least}. Received: {width=}")
        self.supports_masking = True

    def build(self, input_shape):
        # softplus(r) = width - least, without an overflow for a large one.
        above = self.width - self.least
        raw = above + math.log(-math.expm1(-above))
        self.slope = self._scalar(self.negative_slope, "negative_slope")
        self.raw_width = self._scalar(raw, "raw_width")

    def _scalar(self, value, name):
        start = keras.initializers.Constant(value)
        return self.add_weight((), start, dtype="float32", autocast=False, name=name)

    def call(self, inputs):
        width = ops.softplus(self.raw_width) + self.least
        x = smooth_leaky_relu(ops.cast(inputs, "float32"), self.slope, width)
        return ops.cast(x, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "negative_slope": self.negative_slope,
            "width": self.width,
        }
