import keras
from keras import ops

from keras_ext.ops.rotary import rotary_angles


@keras.saving.register_keras_serializable(package="keras_ext")
class TimeEmbedding(keras.layers.Layer):
    """The sines and cosines of a time between 0 and 1, at frequencies from `scale` down.

        output = [sin(scale t f_i), ..., cos(scale t f_i), ...],  f_i = 10000^(-2 i / dim)

    for i from 0 to dim / 2 - 1: first all sines, then all cosines. With the default scale, t = i /
    1000 has the features of step i of a chain of 1000 steps. Everything is float32 whatever the
    policy, and so is the output: bfloat16 cannot tell the steps 999 and 1000 apart.

    Args:
        dim: int, even: number of features.
        scale: float above 0, the highest frequency in radians. Defaults to 1000.

    Call arguments:
        inputs: (b,) float32, times in [0, 1].

    Returns:
        (b, dim) float32.

    Raises:
        ValueError: for an odd `dim`, or a `scale` that is not above 0.

    Example:

    >>> import numpy as np
    >>> features = np.array(TimeEmbedding(4)(np.array([0.0, 0.0035], "float32")))
    >>> [[f"{x:.2f}" for x in row] for row in features]
    [['0.00', '0.00', '1.00', '1.00'], ['-0.35', '0.03', '-0.94', '1.00']]

    Source: Jonathan Ho, Ajay Jain, Pieter Abbeel, Denoising Diffusion Probabilistic Models, 2020,
    https://arxiv.org/abs/2006.11239
    """

    def __init__(self, dim, scale=1000.0, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if dim < 2 or dim % 2:
            raise ValueError(f"Sines and cosines come in pairs, dim must be even. Received: {dim=}")
        if not scale > 0:
            raise ValueError(f"The highest frequency must be above 0. Received: {scale=}")
        self.dim = dim
        self.scale = scale

    def call(self, inputs):
        angles = rotary_angles(self.scale * ops.cast(inputs, "float32"), self.dim)  # (b, dim / 2)
        return ops.concatenate((ops.sin(angles), ops.cos(angles)), axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.dim)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), "float32")

    def get_config(self):
        return {**super().get_config(), "dim": self.dim, "scale": self.scale}
