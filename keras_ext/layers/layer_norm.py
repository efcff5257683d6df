import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_ext")
class LayerNorm(keras.layers.Layer):
    """Layer normalisation with its weights in bert4keras' order, the offset first.

        output = (x - mean(x)) / sqrt(variance(x) + epsilon) * gamma + beta

    It computes what `keras.layers.LayerNormalization` does. There gamma is first, so that
    `model.load_weights` of a file that bert4keras saved would put each into the place of the other,
    of the same shape, without a word. Statistics are float32 in every precision.

    Args:
        epsilon: float, added to the variance. Defaults to 1e-7, as in bert4keras.

    Call arguments:
        inputs: (..., d).

    Returns:
        (..., d) in the compute dtype.

    Example:

    >>> import numpy as np
    >>> layer = LayerNorm()
    >>> np.array(layer(np.array([[1.0, 3.0]]))).round(3).tolist(), layer.weights[0].name
    ([[-1.0, 1.0]], 'beta')

    Source: Jimmy Lei Ba et al., Layer Normalization, 2016, https://arxiv.org/abs/1607.06450
    """

    def __init__(self, epsilon=1e-7, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.supports_masking = True
        self.autocast = False

    def build(self, input_shape):
        shape = (input_shape[-1],)
        # Without autocast they stay float32, as the statistics.
        self.beta = self.add_weight(shape, initializer="zeros", name="beta", autocast=False)
        self.gamma = self.add_weight(shape, initializer="ones", name="gamma", autocast=False)

    def call(self, inputs):
        outputs = ops.layer_normalization(inputs, self.gamma, self.beta, -1, self.epsilon)
        return ops.cast(outputs, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
