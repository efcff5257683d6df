import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_ext")
class PaddingMask(keras.layers.Layer):
    """Which ids are tokens: those above 0, and the first of each row, whatever it is.

        mask[i, j] = id[i, j] > 0 or j == 0

    bert4keras reads its ids so. As the first counts always, no row is without a token.

    Call arguments:
        inputs: (b, n) int, token ids.

    Returns:
        (b, n) bool, true = token.

    Example:

    >>> import numpy as np
    >>> np.array(PaddingMask()(np.array([[0, 7, 0, 8, 0]]))).astype(int).tolist()
    [[1, 1, 0, 1, 0]]
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        is_first = ops.arange(ops.shape(inputs)[1]) == 0
        return ops.logical_or(inputs > 0, is_first)

    def compute_mask(self, inputs, previous_mask=None):
        # The output is a mask itself, not a sequence.
        return None

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, "bool")

    def get_config(self):
        # Without this method Keras refuses a dtype policy that was given as an object.
        return super().get_config()
