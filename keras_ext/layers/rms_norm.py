import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_ext")
class RMSNorm(keras.layers.Layer):
    """Divides each vector by the root mean square of its channels.

        output = x / sqrt(mean(x^2) + epsilon)

    Without weights: RoFormerV2 and GAU-alpha need no more. `keras.layers.RMSNormalization` is the
    layer with a learned scale. The mean is taken in float32 whatever the compute dtype: in
    float16 the square of 256 is infinite and an epsilon of 1e-8 is 0.

    Args:
        epsilon: float, added to the mean square. Defaults to 1e-7.

    Call arguments:
        inputs: (..., d).

    Returns:
        (..., d) in the compute dtype.

    Example:

    >>> import numpy as np
    >>> np.array(RMSNorm()(np.array([[3.0, -3.0]], "float32"))).round(4).tolist()
    [[1.0, -1.0]]

    Source: Biao Zhang, Rico Sennrich, Root Mean Square Layer Normalization, 2019,
    https://arxiv.org/abs/1910.07467
    """

    def __init__(self, epsilon=1e-7, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.supports_masking = True

    def call(self, inputs):
        return ops.rms_normalization(inputs, epsilon=self.epsilon)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
