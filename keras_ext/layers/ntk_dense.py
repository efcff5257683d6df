import keras
from keras import ops

from keras_ext import activations


@keras.saving.register_keras_serializable(package="keras_ext")
class NTKDense(keras.layers.Layer):
    """A dense layer whose kernel is of size 1, and whose product is divided by the root of inputs.

        output = activation(x W / sqrt(m) + b),  W ~ N(0, 1),  m = inputs' channels

    At the beginning it is a dense layer with LeCun's initialiser. It learns differently: for the
    product's factor W / sqrt(m), a step of SGD is m times as small, a step of Adam sqrt(m) times,
    so that one rate means the same relative change at every width. Adam's 0.01 is about 1 %.

    Args:
        units: int, channels of the output.
        activation: name or function, None: none. Defaults to None.
        use_bias: bool, whether a bias is added. Defaults to True.
        kernel_initializer: initializer of W, which should have a variance of 1, or of another
            gain squared. None: normal of mean 0 and deviation 1. Defaults to None.

    Call arguments:
        inputs: (..., m).

    Returns:
        (..., units) in the compute dtype.

    Raises:
        ValueError: for `units` below 1.

    Example:

    >>> import numpy as np
    >>> layer = NTKDense(3, kernel_initializer="ones")
    >>> np.array(layer(np.ones((1, 4), "float32"))).tolist()
    [[2.0, 2.0, 2.0]]

    Source: Arthur Jacot et al., Neural Tangent Kernel, 2018, https://arxiv.org/abs/1806.07572;
    Jianlin Su, 2021, https://kexue.fm/archives/8620
    """

    def __init__(self, units, activation=None, use_bias=True, kernel_initializer=None, **kwargs):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"The number of units must be positive. Received: {units=}")
        self.units = units
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        if kernel_initializer is None:
            kernel_initializer = keras.initializers.RandomNormal(stddev=1.0)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer=self.kernel_initializer, name="kernel"
        )
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, inputs):
        # Dividing the inputs first: the product itself leaves float16 sooner. In float32, as the
        # root rounded to bfloat16 is off by up to 0.2 %.
        inputs = ops.cast(inputs, "float32") * inputs.shape[-1] ** -0.5
        # `matmul` of (b, 1, n, d) by (d, u) ends the process in oneDNN: see `ops.products_with`.
        output = ops.tensordot(ops.cast(inputs, self.compute_dtype), self.kernel, axes=1)
        return self.activation(output + self.bias if self.use_bias else output)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
