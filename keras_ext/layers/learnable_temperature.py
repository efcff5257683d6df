import math

import keras
from keras import ops

from keras_ext.ops import unit_vectors


@keras.saving.register_keras_serializable(package="keras_ext")
class LearnableTemperature(keras.layers.Layer):
    """Unit vectors, scaled so that their inner products are cosines divided by a learned number.

        output = x / |x| * sqrt(1 / T)

    A loss of Keras trains no weights, so the temperature T of a contrastive loss is that of the
    layer before it: `InfoNCE(temperature=1, score="dot")` takes its output. The weight is
    log(1 / T), which holds for all vectors.

    T stays at `minimum` or above by a constraint of the weight, which the optimizer keeps after
    each step. So the gradient is never cut off, as it is where T is clipped in the forward pass.

    Args:
        initial: float, T in the beginning. Defaults to 0.05.
        minimum: float above 0, the least T. Defaults to 0.01, that of CLIP.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: (..., d).

    Returns:
        float32 (..., d), whatever the policy: in half precision a cosine of 1 and one of 0.999 are
        the same. 0 for a vector of zeros.

    Raises:
        ValueError: unless 0 < minimum <= initial.

    Example:

    >>> import numpy as np
    >>> layer = LearnableTemperature(initial=0.25)
    >>> np.array(layer(np.array([[0.0, 3.0]], "float32"))).round(4).tolist()
    [[0.0, 2.0]]
    >>> round(float(layer.temperature), 4)
    0.25

    Source: Alec Radford et al., Learning Transferable Visual Models From Natural Language
    Supervision, 2021, https://arxiv.org/abs/2103.00020
    """

    def __init__(self, initial=0.05, minimum=0.01, **kwargs):
        super().__init__(**kwargs)
        if not 0 < minimum <= initial:
            raise ValueError(f"Expected 0 < minimum <= initial. Received: {minimum=}, {initial=}")
        self.initial = initial
        self.minimum = minimum
        self.supports_masking = True
        self.autocast = False

    def build(self, input_shape):
        self.log_scale = self.add_weight(
            (),
            initializer=keras.initializers.Constant(-math.log(self.initial)),
            constraint=self._above_minimum,
            dtype="float32",  # whatever the policy: small steps must count
            autocast=False,
            name="log_scale",
        )

    def call(self, inputs):
        return unit_vectors(inputs) * ops.exp(self.log_scale / 2)

    @property
    def temperature(self):
        """T, a float32 tensor. The layer must be built."""
        return ops.exp(-self.log_scale)

    def _above_minimum(self, log_scale):
        return ops.minimum(log_scale, -math.log(self.minimum))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype="float32")

    def get_config(self):
        return {**super().get_config(), "initial": self.initial, "minimum": self.minimum}
