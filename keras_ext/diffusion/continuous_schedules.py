"""Schedules that are formulas of time."""

import keras
import numpy as np
from keras import ops

from keras_ext.diffusion.schedule import Schedule
from keras_ext.ops.settings import number


def _rising(names, low, high, least=0.0):
    low, high = number(names[0], low), number(names[1], high)
    if not least < low < high:
        raise ValueError(
            f"Expected {least} < {names[0]} < {names[1]}. "
            f"Received: {names[0]}={low}, {names[1]}={high}"
        )
    return low, high


@keras.saving.register_keras_serializable(package="keras_ext")
class VPContinuousSchedule(Schedule):
    """The variance preserving equation with a linear rate b(t) = low + t (high - low).

        alpha_t = exp(-L / 2),  beta_t^2 = 1 - exp(-L),  L(t) = low t + (high - low) t^2 / 2

    Args:
        low: float, the rate at time 0.
        high: float, the rate at time 1.

    Raises:
        ValueError: unless 0 < low < high.

    Example:

    >>> import keras_ext
    >>> schedule = keras_ext.diffusion.VPContinuousSchedule()
    >>> bool(abs(schedule.beta_bar(1e-5) ** 2 - 1.00099e-6) < 1e-11)
    True

    Source: Score-Based Generative Modeling through Stochastic Differential Equations, Yang Song et
        al., 2020, https://arxiv.org/abs/2011.13456
    """

    variance_preserving = True

    def __init__(self, low=0.1, high=20.0):
        self.low, self.high = _rising(("low", "high"), low, high)

    def _integral(self, t):
        return t * (self.low + 0.5 * (self.high - self.low) * t)

    def _rate(self, t):
        return self.low + (self.high - self.low) * t

    def _time_of_integral(self, xp, integral):
        root = xp.sqrt(self.low**2 + 2.0 * (self.high - self.low) * integral)
        return 2.0 * integral / (self.low + root)

    def _amplitudes(self, xp, t):
        integral = self._integral(t)
        return xp.exp(-0.5 * integral), xp.sqrt(-xp.expm1(-integral))

    def _slopes(self, xp, t):
        alpha = xp.exp(-0.5 * self._integral(t))
        return -0.5 * self._rate(t) * alpha, 0.5 * self._rate(t) * alpha * alpha

    def _time(self, xp, sigma):
        return self._time_of_integral(xp, xp.log1p(sigma * sigma))

    def get_config(self):
        return {"low": self.low, "high": self.high}


@keras.saving.register_keras_serializable(package="keras_ext")
class SubVPSchedule(VPContinuousSchedule):
    """As `VPContinuousSchedule` with less noise: beta_t = 1 - alpha_t^2, the amplitude itself.

    Args:
        low: float, the rate at time 0.
        high: float, the rate at time 1.

    Raises:
        ValueError: unless 0 < low < high.

    Example:

    >>> import keras_ext
    >>> schedule = keras_ext.diffusion.SubVPSchedule()
    >>> bool(np.isclose(schedule.beta_bar(0.3), 1 - schedule.alpha_bar(0.3) ** 2))
    True

    Source: Score-Based Generative Modeling through Stochastic Differential Equations, Yang Song et
        al., 2020, https://arxiv.org/abs/2011.13456
    """

    variance_preserving = False

    def _amplitudes(self, xp, t):
        integral = self._integral(t)
        return xp.exp(-0.5 * integral), -xp.expm1(-integral)

    def _slopes(self, xp, t):
        alpha, beta = self._amplitudes(xp, t)
        rate = self._rate(t)
        return -0.5 * rate * alpha, beta * rate * alpha * alpha

    def _time(self, xp, sigma):
        # 1 / alpha - alpha = sigma: alpha = exp(-asinh(sigma / 2)).
        return self._time_of_integral(xp, 2.0 * xp.arcsinh(0.5 * sigma))


@keras.saving.register_keras_serializable(package="keras_ext")
class VESchedule(Schedule):
    """Exploding variance: alpha_t = 1, beta_t = low (high / low)^t.

    At time 0 a noise of `low` is left, which samplers take away with their last hop.

    Args:
        low: float, the noise at time 0.
        high: float, the noise at time 1.

    Raises:
        ValueError: unless 0 < low < high.

    Example:

    >>> import keras_ext
    >>> float(keras_ext.diffusion.VESchedule(0.01, 100.0).sigma(0.5).round(9))
    1.0

    Source: Score-Based Generative Modeling through Stochastic Differential Equations, Yang Song et
        al., 2020, https://arxiv.org/abs/2011.13456
    """

    def __init__(self, low=0.01, high=50.0):
        self.low, self.high = _rising(("low", "high"), low, high)

    def _amplitudes(self, xp, t):
        return xp.ones_like(t), self.low * xp.exp(t * np.log(self.high / self.low))

    def _slopes(self, xp, t):
        beta = self._amplitudes(xp, t)[1]
        return xp.zeros_like(t), beta * beta * np.log(self.high / self.low)

    def _time(self, xp, sigma):
        return xp.log(sigma / self.low) / np.log(self.high / self.low)

    def get_config(self):
        return {"low": self.low, "high": self.high}


@keras.saving.register_keras_serializable(package="keras_ext")
class EDMSchedule(Schedule):
    """alpha_t = 1, and the rho-th root of the noise linear in time: beta_t =
    (low^(1/rho) + t (high^(1/rho) - low^(1/rho)))^rho.

    At time 0 a noise of `low` is left, which samplers take away with their last hop.

    Args:
        low: float, the noise at time 0.
        high: float, the noise at time 1.
        rho: float, the larger, the more of the time has little noise.

    Raises:
        ValueError: unless 0 < low < high and rho > 0.

    Example:

    >>> import keras_ext
    >>> float(keras_ext.diffusion.EDMSchedule().sigma(1.0).round(9))
    80.0

    Source: Elucidating the Design Space of Diffusion-Based Generative Models, Tero Karras et al.,
        2022, https://arxiv.org/abs/2206.00364
    """

    def __init__(self, low=0.002, high=80.0, rho=7.0):
        self.low, self.high = _rising(("low", "high"), low, high)
        self.rho = number("rho", rho)
        if self.rho <= 0:
            raise ValueError(f"Expected rho > 0. Received: rho={rho}")

    def _root(self, t):
        first, last = self.low ** (1 / self.rho), self.high ** (1 / self.rho)
        return first + t * (last - first), last - first

    def _amplitudes(self, xp, t):
        return xp.ones_like(t), self._root(t)[0] ** self.rho

    def _slopes(self, xp, t):
        root, slope = self._root(t)
        return xp.zeros_like(t), self.rho * slope * root ** (2 * self.rho - 1)

    def _time(self, xp, sigma):
        first, length = self._root(0.0)
        return (sigma ** (1 / self.rho) - first) / length

    def get_config(self):
        return {"low": self.low, "high": self.high, "rho": self.rho}


@keras.saving.register_keras_serializable(package="keras_ext")
class StraightSchedule(Schedule):
    """The straight path from data to noise of flow matching: alpha_t = 1 - t, beta_t = t.

    At time 1 nothing of the data is left: sigma is infinite, and a network has to predict "x0" or
    "velocity" there.

    Example:

    >>> import keras_ext
    >>> schedule = keras_ext.diffusion.StraightSchedule()
    >>> float(schedule.sigma(0.5)), float(schedule.sigma(1.0))
    (1.0, inf)

    Source: Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow,
        Xingchao Liu, Chengyue Gong, Qiang Liu, 2022, https://arxiv.org/abs/2209.03003
    """

    def _amplitudes(self, xp, t):
        return 1.0 - t, t * 1.0

    def _slopes(self, xp, t):
        return -xp.ones_like(t), t * 1.0

    def _time(self, xp, sigma):
        # Not sigma / (1 + sigma), which is NaN where sigma is infinite.
        return 1.0 - 1.0 / (1.0 + sigma) if xp is ops else _share(sigma)


def _share(sigma):
    return np.where(np.isinf(sigma), 1.0, sigma / (1.0 + sigma))
