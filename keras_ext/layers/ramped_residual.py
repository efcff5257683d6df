import keras
from keras import ops

from keras_ext.layers.deepnorm_residual import first_mask, joined_shape

# float32 counts no further.
MOST_STEPS = 2**24


@keras.saving.register_keras_serializable(package="keras_ext")
class RampedResidual(keras.layers.Layer):
    """Adds a branch that comes in slowly, as training goes on.

        output = x + a * f,  a = min(t / steps, 1),  t = training calls before this one

    The model begins as one without branches, that is, as the identity, and needs no warm-up of the
    learning rate. t is a weight that is not trained: it is saved, so that a model that is loaded
    goes on where it was. In inference a is that of the next training call, and t stays. A layer
    that a model calls twice counts twice: each branch takes one of its own.

    Args:
        steps: int from 1 to 2^24, training calls until a is 1.

    Call arguments:
        inputs: list of the residual x and the branch f, (..., d) each.

    Returns:
        (..., d) in the compute dtype.

    Raises:
        ValueError: for other `steps`, or inputs that are not two of one shape.

    Example:

    >>> import numpy as np
    >>> layer, x, f = RampedResidual(steps=4), np.array([[1.0]]), np.array([[8.0]])
    >>> [float(layer([x, f], training=True)[0, 0]) for _ in range(6)]
    [1.0, 3.0, 5.0, 7.0, 9.0, 9.0]

    Source: Jianlin Su, On the initialisation, parameterisation and normalisation of the
    Transformer, 2021, https://kexue.fm/archives/8620
    """

    def __init__(self, steps, **kwargs):
        super().__init__(**kwargs)
        if not 1 <= steps <= MOST_STEPS:
            raise ValueError(f"Expected steps from 1 to {MOST_STEPS}. Received: {steps=}")
        self.steps = steps
        self.supports_masking = True

    def build(self, input_shape):
        joined_shape(input_shape)  # raises where there is none
        # bfloat16 would count no further than 256.
        self.counter = self.add_weight(
            (),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            autocast=False,
            name="counter",
        )

    def call(self, inputs, training=None):
        x, branch = (ops.cast(part, "float32") for part in inputs)
        count = ops.copy(self.counter)
        if training:
            self.counter.assign(ops.minimum(count + 1.0, float(self.steps)))
        return ops.cast(x + count / self.steps * branch, self.compute_dtype)

    def compute_mask(self, inputs, mask=None):
        return first_mask(mask)

    def compute_output_shape(self, input_shape):
        return joined_shape(input_shape)

    def get_config(self):
        return {**super().get_config(), "steps": self.steps}
