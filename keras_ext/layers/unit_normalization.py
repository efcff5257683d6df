import keras

from keras_ext.ops import unit_vectors


@keras.saving.register_keras_serializable(package="keras_ext")
class UnitNormalization(keras.layers.Layer):
    """Divides each vector by its length, in float32 whatever the policy.

        output = x / |x|,  and 0 where x = 0

    `keras.layers.UnitNormalization` adds an epsilon of 1e-12, which is 0 in float16, so that a
    vector of zeros becomes NaN. Here it stays 0, its gradient is 0, and no length is too small or
    too large (see `ops.unit_vectors`).

    Call arguments:
        inputs: (..., d).

    Returns:
        float32 (..., d).

    Example:

    >>> import numpy as np
    >>> np.array(UnitNormalization()(np.array([[3.0, -4.0]], "float32"))).round(4).tolist()
    [[0.6000000238418579, -0.800000011920929]]
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.autocast = False

    def call(self, inputs):
        return unit_vectors(inputs)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, "float32")

    def get_config(self):
        # Without this method Keras refuses a dtype policy that was given as an object.
        return super().get_config()
