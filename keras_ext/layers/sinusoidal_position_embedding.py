import keras
from keras import ops

from keras_ext.ops.rotary import rotary_angles


@keras.saving.register_keras_serializable(package="keras_ext")
class SinusoidalPositionEmbedding(keras.layers.Layer):
    """Adds the sines and cosines of a position, at frequencies from 1 down to about 1 / base.

        output[.., 2 i]     = input[.., 2 i]     + sin(position * base^(-2 i / d))
        output[.., 2 i + 1] = input[.., 2 i + 1] + cos(position * base^(-2 i / d))

    Sine and cosine lie side by side, as in bert4keras. Nothing is learned and no length is too
    great. Angles, sines and cosines are float32 whatever the policy.

    Args:
        base: float above 0. Defaults to 10000.

    Call arguments:
        inputs: (b, n, d), d even.
        positions: (n,) or (b, n), integers or floats. None: 0, 1, ..., n - 1.

    Returns:
        (b, n, d) in the compute dtype.

    Raises:
        ValueError: for an odd d or a `base` that is not above 0.

    Example:

    >>> import numpy as np
    >>> layer = SinusoidalPositionEmbedding()
    >>> output = layer(np.zeros((1, 2, 4), "float32"), positions=np.array([0, 2.5]))
    >>> [[f"{x:.2f}" for x in row] for row in np.array(output)[0]]
    [['0.00', '1.00', '0.00', '1.00'], ['0.60', '-0.80', '0.02', '1.00']]

    Source: Ashish Vaswani et al., Attention Is All You Need, 2017,
    https://arxiv.org/abs/1706.03762
    """

    def __init__(self, base=10000.0, **kwargs):
        # Positions are not rounded to the compute dtype: bfloat16 has no 257.
        super().__init__(autocast=False, **kwargs)
        if not base > 0:
            raise ValueError(f"The base of the frequencies must be above 0. Received: {base=}")
        self.base = base
        self.supports_masking = True

    def build(self, input_shape):
        if input_shape[-1] % 2:
            raise ValueError(
                "Sines and cosines come in pairs, the width must be even. "
                f"Received: input_shape={tuple(input_shape)}"
            )

    def call(self, inputs, positions=None):
        width = inputs.shape[-1]
        if positions is None:
            positions = ops.arange(ops.shape(inputs)[1], dtype="int32")
        angles = rotary_angles(positions, width, self.base)  # (1 or b, n, d / 2)
        pairs = ops.stack((ops.sin(angles), ops.cos(angles)), axis=-1)
        waves = ops.reshape(pairs, (*ops.shape(angles)[:-1], width))
        return ops.cast(inputs, self.compute_dtype) + ops.cast(waves, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "base": self.base}
