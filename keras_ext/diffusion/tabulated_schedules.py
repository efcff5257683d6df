"""Schedules of a number of steps, smooth in between."""

import keras
import numpy as np
from keras import ops

from keras_ext.diffusion.monotone_cubic import MonotoneCubic
from keras_ext.diffusion.schedule import Schedule
from keras_ext.ops.settings import number, whole


class TabulatedSchedule(Schedule):
    """A schedule that is given at the times i / T, i = 0 ... T.

    In between, the angle atan(beta / alpha), which rises from 0 to at most pi / 2, and the length
    (alpha^2 + beta^2)^(1/2) are interpolated by a `MonotoneCubic`: so sigma rises strictly, a
    schedule that preserves the variance does it at all times, and no signal at time 1 is no
    exception.
    """

    def __init__(self, alpha, beta):
        self.steps = len(alpha) - 1
        length = np.hypot(alpha, beta)
        self.variance_preserving = bool(np.all(np.abs(length - 1.0) < 1e-9))
        self._angles = np.arctan2(beta, alpha)
        self._angle = MonotoneCubic(self._angles)
        # Each for what it is precise for: the one near 0 for beta, the other for alpha.
        self._complement = MonotoneCubic(np.arctan2(alpha, beta))
        self._length = MonotoneCubic(length)

    def _scale(self, xp, t):
        """Length and its slope."""
        if self.variance_preserving:
            return xp.ones_like(t), xp.zeros_like(t)
        return self._length(xp, t)

    def _amplitudes(self, xp, t):
        length = self._scale(xp, t)[0]
        alpha, beta = xp.sin(self._complement(xp, t)[0]), xp.sin(self._angle(xp, t)[0])
        return length * alpha, length * beta

    def _slopes(self, xp, t):
        length, length_slope = self._scale(xp, t)
        angle, slope = self._angle(xp, t)
        alpha, beta = xp.sin(self._complement(xp, t)[0]), xp.sin(angle)
        return (
            length_slope * alpha - length * beta * slope,
            length * beta * (length_slope * beta + length * alpha * slope),
        )

    def _time(self, xp, sigma):
        angle = xp.arctan(sigma)
        if xp is ops:
            # No derivative passes through halvings: that of the inverse is 1 over that of the curve.
            time = ops.stop_gradient(self._time_of_angle(ops, ops.stop_gradient(angle)))
            slope = ops.stop_gradient(ops.maximum(self._angle(ops, time)[1], 1e-6))
            return time + (angle - ops.stop_gradient(angle)) / slope
        return self._time_of_angle(np, angle)

    def _time_of_angle(self, xp, angle):
        angles = (
            ops.convert_to_tensor(self._angles.astype("float32")) if xp is ops else self._angles
        )
        interval = xp.clip(xp.searchsorted(angles, angle, side="right") - 1, 0, self.steps - 1)
        c0, c1, c2, c3 = self._angle.pieces(xp, interval)

        def halve(_, bounds):
            low, high = bounds
            s = 0.5 * (low + high)
            above = c0 + s * (c1 + s * (c2 + s * c3)) > angle
            return xp.where(above, low, s), xp.where(above, s, high)

        bounds = xp.zeros_like(angle), xp.ones_like(angle)
        if xp is ops:
            bounds = ops.fori_loop(0, 26, halve, bounds)
            return (ops.cast(interval, "float32") + 0.5 * (bounds[0] + bounds[1])) / self.steps
        for i in range(54):
            bounds = halve(i, bounds)
        return (interval + 0.5 * (bounds[0] + bounds[1])) / self.steps


def from_rates(rates):
    """Amplitudes of a schedule that preserves the variance, with beta_i^2 = rates: (T + 1,) each."""
    logarithm = np.concatenate([[0.0], np.cumsum(np.log1p(-rates))])
    return np.exp(0.5 * logarithm), np.sqrt(-np.expm1(logarithm))


@keras.saving.register_keras_serializable(package="keras_ext")
class LinearHoSchedule(TabulatedSchedule):
    """The schedule of DDPM: variances beta_i^2 of the noise that rise linearly.

        x_i = (1 - beta_i^2)^(1/2) x_{i-1} + beta_i eps,  beta_i^2 from `first` to `last`

    Args:
        steps: int, number of steps.
        first: float, variance of the first step.
        last: float, variance of the last step.

    Raises:
        ValueError: unless 0 < first <= last < 1.

    Example:

    >>> import keras_ext
    >>> schedule = keras_ext.diffusion.LinearHoSchedule()
    >>> float(schedule.alpha_bar(1.0).round(5))
    0.00635

    Source: Denoising Diffusion Probabilistic Models, Jonathan Ho, Ajay Jain, Pieter Abbeel, 2020,
        https://arxiv.org/abs/2006.11239
    """

    def __init__(self, steps=1000, first=1e-4, last=0.02):
        steps = whole("steps", steps)
        self.first, self.last = number("first", first), number("last", last)
        if not 0 < self.first <= self.last < 1:
            raise ValueError(f"Expected 0 < first <= last < 1. Received: {first=}, {last=}")
        super().__init__(*from_rates(np.linspace(self.first, self.last, steps)))

    def get_config(self):
        return {"steps": self.steps, "first": self.first, "last": self.last}


@keras.saving.register_keras_serializable(package="keras_ext")
class SuLinearSchedule(TabulatedSchedule):
    """Variances beta_i^2 = last i / T, i = 1 ... T, of the noise that is added at each step.

    Args:
        steps: int, number of steps T.
        last: float, variance of the last step.

    Raises:
        ValueError: unless 0 < last < 1.

    Example:

    >>> import keras_ext
    >>> float(keras_ext.diffusion.SuLinearSchedule().alpha_bar(1.0).round(5))
    0.00648

    Source: A Talk on Generative Diffusion Models (2): DDPM as an Autoregressive VAE, Jianlin Su,
        2022, https://kexue.fm/archives/9152
    """

    def __init__(self, steps=1000, last=0.02):
        steps, self.last = whole("steps", steps), number("last", last)
        if not 0 < self.last < 1:
            raise ValueError(f"Expected 0 < last < 1. Received: {last=}")
        super().__init__(*from_rates(self.last * np.arange(1, steps + 1) / steps))

    def get_config(self):
        return {"steps": self.steps, "last": self.last}


@keras.saving.register_keras_serializable(package="keras_ext")
class CosineSchedule(TabulatedSchedule):
    """alpha_i proportional to cos(pi / 2 (i / T + offset) / (1 + offset)), with limited steps.

    Args:
        steps: int, number of steps T.
        offset: float, keeps the first steps from being tiny.
        largest: float, the limit of the variance beta_i^2 of a step, so that some signal is left
            at time 1.

    Raises:
        ValueError: if offset is negative or `largest` is not between 0 and 1.

    Example:

    >>> import keras_ext
    >>> schedule = keras_ext.diffusion.CosineSchedule()
    >>> bool(0 < schedule.alpha_bar(1.0) < 1e-4)
    True

    Source: Improved Denoising Diffusion Probabilistic Models, Alex Nichol, Prafulla Dhariwal, 2021,
        https://arxiv.org/abs/2102.09672
    """

    def __init__(self, steps=1000, offset=0.008, largest=0.999):
        steps = whole("steps", steps)
        self.offset, self.largest = number("offset", offset), number("largest", largest)
        if self.offset < 0 or not 0 < self.largest < 1:
            raise ValueError(
                f"Expected offset >= 0 and 0 < largest < 1. Received: {offset=}, {largest=}"
            )
        places = (np.arange(steps + 1) / steps + self.offset) / (1 + self.offset)
        squares = np.cos(0.5 * np.pi * places) ** 2
        rates = np.minimum(1.0 - squares[1:] / squares[:-1], self.largest)
        super().__init__(*from_rates(rates))

    def get_config(self):
        return {"steps": self.steps, "offset": self.offset, "largest": self.largest}


@keras.saving.register_keras_serializable(package="keras_ext")
class CustomSchedule(TabulatedSchedule):
    """A schedule of given amplitudes at the times i / T.

    Args:
        alpha: list or array (T + 1,) of the amplitudes of the data; entry 0, the data, is 1. The
            last may be 0: no signal at all.
        beta: the same of the noise; entry 0 is 0.

    Raises:
        ValueError: if entry 0 is not 1 and 0, or beta / alpha does not rise strictly.

    Example:

    >>> import keras_ext
    >>> schedule = keras_ext.diffusion.CustomSchedule([1.0, 0.8, 0.0], [0.0, 0.6, 1.0])
    >>> schedule.variance_preserving
    True
    """

    def __init__(self, alpha, beta):
        self.alpha, self.beta = (np.asarray(x, "float64") for x in (alpha, beta))
        if self.alpha.ndim != 1 or self.alpha.shape != self.beta.shape or len(self.alpha) < 2:
            raise ValueError(
                "Expected two arrays (steps + 1,) of at least one step. "
                f"Received: shapes {self.alpha.shape} and {self.beta.shape}"
            )
        finite = np.isfinite(self.alpha).all() and np.isfinite(self.beta).all()
        if not finite or self.alpha[0] != 1 or self.beta[0] != 0 or np.any(self.alpha < 0):
            raise ValueError(
                "Expected finite amplitudes alpha >= 0 that begin at the data, alpha=1, beta=0. "
                f"Received: alpha={self.alpha}, beta={self.beta}"
            )
        if not np.all(np.diff(np.arctan2(self.beta, self.alpha)) > 0):
            raise ValueError(
                f"Expected beta / alpha to rise strictly. Received: alpha={self.alpha}, "
                f"beta={self.beta}"
            )
        super().__init__(self.alpha, self.beta)

    def get_config(self):
        return {"alpha": self.alpha.tolist(), "beta": self.beta.tolist()}
