import keras


@keras.saving.register_keras_serializable(package="keras_ext")
class AttachMask(keras.layers.Layer):
    """Hands a sequence on with a mask attached, which the layers after it then get from Keras.

        output = inputs

    The encoders pass their masks explicitly. Where users add layers to a model and rely on Keras
    to pass the mask on, as bert4keras does, this is where that begins.

    Call arguments:
        inputs: list of a sequence (b, n, ...) and its mask (b, n) bool, true = token.

    Returns:
        The sequence, in the compute dtype.

    Example:

    >>> import numpy as np
    >>> mask = np.array([[True, True, False]])
    >>> hidden = AttachMask()([np.array([[[1.0], [3.0], [8.0]]]), mask])
    >>> np.array(keras.layers.GlobalAveragePooling1D()(hidden)).tolist()
    [[2.0]]
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        return inputs[0]

    def compute_mask(self, inputs, previous_mask=None):
        return inputs[1]

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs[0].shape, self.compute_dtype)

    def get_config(self):
        # Without this method Keras refuses a dtype policy that was given as an object.
        return super().get_config()
