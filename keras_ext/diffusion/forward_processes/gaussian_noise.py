import keras
import numpy as np
from keras import ops

from keras_ext.diffusion import schedules
from keras_ext.diffusion.forward_processes.forward_process import ForwardProcess, first_seed
from keras_ext.diffusion.hops import jump2
from keras_ext.diffusion.noise import standard_normal
from keras_ext.diffusion.predictions import aligned


@keras.saving.register_keras_serializable(package="keras_ext")
class GaussianNoise(ForwardProcess):
    """Adds normal noise: x_t = alpha_t x_0 + beta_t eps.

    "invert" and "increment" are DDIM; "mix" is DDIM with the eta of `rho(t, q, eta)`, eta = 1, its
    default, DDPM; "resample" is "mix" with rho = 1. A schedule whose beta is large, such as "ve",
    gives a network large numbers.

    Args:
        schedule: a `Schedule` or its name.

    Example:

    >>> process = GaussianNoise("straight")
    >>> x, eps = process.sample(np.ones((1, 2), "float32"), 1.0, seed=0)
    >>> bool(np.all(np.asarray(x) == np.asarray(eps)))
    True

    Source: Denoising Diffusion Implicit Models, Jiaming Song, Chenlin Meng, Stefano Ermon, 2020,
        https://arxiv.org/abs/2010.02502
    """

    rules = ("invert", "mix", "resample", "increment")

    def __init__(self, schedule="cosine"):
        self.schedule = schedules.get(schedule)

    def levels(self, t):
        """alpha_t and beta_t; 1 and 0 at time 0."""
        if not ops.is_tensor(t):
            return self.schedule.levels(np.asarray(t))
        alpha, beta = self.schedule.alpha_bar(t), self.schedule.beta_bar(t)
        return ops.where(t == 0, 1.0, alpha), ops.where(t == 0, 0.0, beta)

    def noise(self, shape, seed, draw=0):
        """Standard normal numbers."""
        return standard_normal(seed, draw, shape)

    def degrade(self, x0, levels, noise):
        """alpha x0 + beta noise."""
        return linear(x0, levels, noise)

    def posterior_noise(self, x0, x, levels, seed, draw=0):
        """(x - alpha x0) / beta."""
        return linear_noise(x0, x, levels)

    def mixed(self, noise, fresh, shares, seed, draw=0):
        """(1 - rho^2)^(1/2) noise + rho fresh."""
        return linear(noise, shares, fresh)

    def rho(self, t, q, eta=1.0):
        """eta beta_{t|q} / beta_t, at most 1: with it "mix" is `ddim` with eta."""
        return gaussian_rho(self.levels(t), self.levels(q), eta)

    def prior(self, shape, seed=None):
        """beta_1 times standard normal numbers."""
        return self.levels(1.0)[1] * standard_normal(*first_seed(seed), shape)

    def get_config(self):
        return {"schedule": keras.saving.serialize_keras_object(self.schedule)}


def linear(x0, levels, noise):
    """alpha x0 + beta noise."""
    alpha, beta = (aligned(level, x0) for level in levels)
    return alpha * x0 + beta * noise


def linear_noise(x0, x, levels):
    """(x - alpha x0) / beta."""
    alpha, beta = (aligned(level, x0) for level in levels)
    return (x - alpha * x0) / beta


def gaussian_rho(levels, next_levels, eta=1.0):
    """eta beta_{t|q} / beta_t, at most 1, of amplitudes at t and at q."""
    share = eta * jump2(levels, next_levels) ** 0.5 / levels[1]
    return ops.minimum(share, 1.0) if ops.is_tensor(share) else np.minimum(share, 1.0)
