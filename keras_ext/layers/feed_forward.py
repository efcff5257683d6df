import keras
from keras import ops

from keras_ext import activations
from keras_ext.ops.rows import as_rows


@keras.saving.register_keras_serializable(package="keras_ext")
class FeedForward(keras.layers.Layer):
    """Two dense layers with an activation between them, the same at each position.

        output = activation(x W_1 + b_1) W_2 + b_2

    The width of the output is that of the input.

    Args:
        units: int, width between the two layers.
        activation: name or function. "gelu" is the exact one (by the error function),
            "gelu_tanh" the approximation of Google's BERT. Defaults to "gelu".
        use_bias: bool, whether both layers add a bias. Defaults to True.
        kernel_initializer: initializer of both kernels. Defaults to "glorot_uniform".

    Call arguments:
        inputs: (..., d).

    Returns:
        (..., d) in the compute dtype.

    Example:

    >>> import numpy as np
    >>> layer = FeedForward(16, activation="gelu_tanh")
    >>> tuple(layer(np.ones((2, 3, 4), "float32")).shape)
    (2, 3, 4)
    """

    def __init__(
        self,
        units,
        activation="gelu",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = units
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        is_gelu = self.activation is keras.activations.gelu
        self.intermediate_dense = keras.layers.Dense(
            units,
            activation=_gelu if is_gelu else self.activation,
            use_bias=use_bias,
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=self.dtype_policy,
            name="intermediate",
        )
        self.supports_masking = True

    def build(self, input_shape):
        self.intermediate_dense.build(input_shape)
        # Its width is the width of the input, known only here.
        self.output_dense = keras.layers.Dense(
            input_shape[-1],
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=self.dtype_policy,
            name="output",
        )
        self.output_dense.build((*input_shape[:-1], self.units))

    def call(self, inputs):
        rows = self.output_dense(self.intermediate_dense(as_rows(inputs)))
        return ops.reshape(rows, ops.shape(inputs))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def _gelu(x):
    # Keras writes it with the complement, erfc, whose gradient takes TensorFlow a third longer.
    return 0.5 * x * (1.0 + ops.erf(x * 0.5**0.5))
