import keras


@keras.saving.register_keras_serializable(package="keras_ext")
class ScaleOffset(keras.layers.Layer):
    """Multiplies each channel by a learned number and adds another.

        output = gamma * x + beta

    The weights come in the order beta, gamma (bert4keras' order); the layer has only those that
    it uses. It begins as the identity.

    Args:
        scale: bool, whether to multiply by `gamma`. Defaults to True.
        offset: bool, whether to add `beta`. Defaults to True.

    Call arguments:
        inputs: (..., d).

    Returns:
        (..., d) in the compute dtype.

    Example:

    >>> import numpy as np
    >>> layer = ScaleOffset(offset=False)
    >>> np.array(layer(np.array([[1.0, 2.0]], "float32"))).tolist()
    [[1.0, 2.0]]
    """

    def __init__(self, scale=True, offset=True, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale
        self.offset = offset
        self.supports_masking = True

    def build(self, input_shape):
        if self.offset:
            self.beta = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="beta")
        if self.scale:
            self.gamma = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="gamma")

    def call(self, inputs):
        outputs = inputs * self.gamma if self.scale else inputs
        return outputs + self.beta if self.offset else outputs

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "offset": self.offset}
