import keras
import numpy as np
from keras import ops

from keras_ext.diffusion.forward_processes.forward_process import ForwardProcess
from keras_ext.diffusion.predictions import aligned


@keras.saving.register_keras_serializable(package="keras_ext")
class Fade(ForwardProcess):
    """Fades to a constant: x_t = (1 - t) x_0 + t value.

    Nothing is random: from time 1 a network has one sample to give, the mean of the data. What it
    restores is data that are faded in part.

    Args:
        value: float, or list of floats, one for each channel (the last axis).

    Example:

    >>> x, noise = Fade([0.0, 1.0]).sample(np.full((1, 2), 0.5, "float32"), 0.5)
    >>> np.asarray(x).tolist()
    [[0.25, 0.75]]

    Source: Cold Diffusion: Inverting Arbitrary Image Transforms Without Noise, Arpit Bansal et al.,
        2022, https://arxiv.org/abs/2208.09392
    """

    rules = ("increment", "resample")

    def __init__(self, value=0.0):
        value = np.asarray(value, "float64")
        if value.ndim > 1 or not np.all(np.isfinite(value)):
            raise ValueError(f"Expected a finite value, or one a channel. Received: value={value}")
        self.value = value.tolist()

    def degrade(self, x0, levels, noise):
        """(1 - t) x0 + t value."""
        t = aligned(levels[0], x0)
        return (1.0 - t) * x0 + t * np.float32(self.value)

    def prior(self, shape, seed=None):
        """The constant."""
        return ops.broadcast_to(np.float32(self.value), shape)

    def get_config(self):
        return {"value": self.value}
