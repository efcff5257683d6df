import keras

from keras_ext.diffusion.checks import known
from keras_ext.diffusion.forward_processes.forward_process import ForwardProcess, first_seed
from keras_ext.diffusion.forward_processes.gaussian_noise import (
    gaussian_rho,
    linear,
    linear_noise,
)
from keras_ext.diffusion.noise import standard_normal


@keras.saving.register_keras_serializable(package="keras_ext")
class Interpolate(ForwardProcess):
    """Goes straight from data to something else: x_t = (1 - t) x_0 + t x_1, as rectified flow.

    "invert" follows the line through x_t and the guess of the data, which is Euler's method for the
    flow x_1 - x_0.

    Args:
        end: str, what x_1 is: "noise", standard normal numbers, or "data", another data set, which
            training is given as `noise` and sampling as its start. Then there is nothing to draw,
            and the rules are "invert" and "increment".

    Example:

    >>> import numpy as np
    >>> dark, light = np.zeros((1, 2), "float32"), np.ones((1, 2), "float32")
    >>> x, _ = Interpolate("data").sample(dark, 0.25, noise=light)
    >>> float(x[0, 0])
    0.25

    Source: Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow,
        Xingchao Liu, Chengyue Gong, Qiang Liu, 2022, https://arxiv.org/abs/2209.03003
    """

    def __init__(self, end="noise"):
        self.end = known("end", end, ["noise", "data"])

    @property
    def rules(self):
        """The rules that it has, its default first."""
        random = ("mix", "resample") if self.end == "noise" else ()
        return ("invert", *random, "increment")

    def levels(self, t):
        """1 - t and t."""
        return 1.0 - t, t

    def noise(self, shape, seed, draw=0):
        """Standard normal numbers, x_1."""
        if self.end == "data":
            raise ValueError(
                "The other end of this process is a data set. Expected samples of it as `noise`, in "
                'training {"x": x0, "noise": x1}. Received: noise=None'
            )
        return standard_normal(seed, draw, shape)

    def degrade(self, x0, levels, noise):
        """(1 - t) x0 + t noise."""
        return linear(x0, levels, noise)

    def posterior_noise(self, x0, x, levels, seed, draw=0):
        """(x - (1 - t) x0) / t."""
        return linear_noise(x0, x, levels)

    def mixed(self, noise, fresh, shares, seed, draw=0):
        """(1 - rho^2)^(1/2) noise + rho fresh."""
        return linear(noise, shares, fresh)

    def rho(self, t, q):
        """That of the Markov process with these x_t, as of `GaussianNoise`."""
        return gaussian_rho(self.levels(t), self.levels(q))

    def prior(self, shape, seed=None):
        """Standard normal numbers."""
        return (
            super().prior(shape)
            if self.end == "data"
            else standard_normal(*first_seed(seed), shape)
        )

    def get_config(self):
        return {"end": self.end}
