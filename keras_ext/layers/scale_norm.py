import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_ext")
class ScaleNorm(keras.layers.Layer):
    """Gives every vector the same length, which is learned.

        output = g * x * sqrt(d) / |x|,  computed as g * x / sqrt(mean(x^2) + epsilon)

    g is one number for all channels and begins as 1. `RMSNorm` is the same without it. Computed in
    float32 whatever the compute dtype.

    Args:
        epsilon: float, added to the mean square; a vector of zeros stays one, with a gradient of
            g / sqrt(epsilon). Defaults to 1e-7.

    Call arguments:
        inputs: (..., d).

    Returns:
        (..., d) in the compute dtype.

    Example:

    >>> import numpy as np
    >>> np.array(ScaleNorm()(np.array([[2.0, -2.0, 2.0, 2.0]]))).round(4).tolist()
    [[1.0, -1.0, 1.0, 1.0]]

    Source: Toan Q. Nguyen, Julian Salazar, Transformers without Tears: Improving the Normalization
    of Self-Attention, 2019, https://arxiv.org/abs/1910.05895
    """

    def __init__(self, epsilon=1e-7, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.supports_masking = True
        self.autocast = False

    def build(self, input_shape):
        # Without autocast it stays float32, as the statistics.
        self.gain = self.add_weight((), initializer="ones", name="gain", autocast=False)

    def call(self, inputs):
        x = ops.cast(inputs, "float32")
        x = self.gain * ops.rms_normalization(x, epsilon=self.epsilon)
        return ops.cast(x, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
