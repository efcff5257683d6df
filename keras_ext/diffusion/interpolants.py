"""The paths between data and noise, or between two data sets, on which a flow is trained."""

import math

import keras
import numpy as np
from keras import ops
from keras.saving import deserialize_keras_object, serialize_keras_object

from keras_ext.diffusion import schedules
from keras_ext.diffusion.autodiff import value_and_derivative
from keras_ext.diffusion.predictions import aligned
from keras_ext.ops.settings import number

NEAR = 1e-3
"""How far times stay away from an end at which a velocity is infinite."""


class Interpolant:
    """A path x_t from x0, the data, at t = 0 to x1, noise or other data, at t = 1.

    A subclass defines `__call__(x0, x1, t, z=None)`, which gives x_t, and
    `velocity(x0, x1, t, z=None)`, its derivative by t; x0, x1 and z (b, ...) float32, t (b,)
    float32. With `noisy`, z are standard normal numbers; the others do not look at it. `config` of
    its own goes into `get_config`.

    Example:

    >>> x0, x1 = ops.zeros((1, 2)), ops.ones((1, 2))
    >>> float(get("linear")(x0, x1, 0.25)[0, 0])
    0.25

    Source: Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow,
        Xingchao Liu, Chengyue Gong, Qiang Liu, 2022, https://arxiv.org/abs/2209.03003
    """

    straight = False
    """Whether x_t = (1 - t) x0 + t x1."""

    noisy = False
    """Whether it takes noise z beside its ends."""

    first, last = 0.0, 1.0
    """The times between which a model is trained: where the velocity is finite."""

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


@keras.saving.register_keras_serializable(package="keras_ext")
class LinearInterpolant(Interpolant):
    """The straight line: x_t = (1 - t) x0 + t x1, of the velocity x1 - x0.

    Example:

    >>> x0, x1 = ops.zeros((1, 2)), ops.ones((1, 2))
    >>> float(LinearInterpolant().velocity(x0, x1, 0.25)[0, 0])
    1.0

    Source: Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow,
        Xingchao Liu, Chengyue Gong, Qiang Liu, 2022, https://arxiv.org/abs/2209.03003
    """

    straight = True

    def __call__(self, x0, x1, t, z=None):
        t = aligned(t, x0)
        return (1.0 - t) * x0 + t * x1

    def velocity(self, x0, x1, t, z=None):
        return x1 - x0


@keras.saving.register_keras_serializable(package="keras_ext")
class TrigonometricInterpolant(Interpolant):
    """A quarter of a circle: x_t = cos(pi t / 2) x0 + sin(pi t / 2) x1.

    Example:

    >>> x0, x1 = ops.zeros((1, 2)), ops.ones((1, 2))
    >>> round(float(TrigonometricInterpolant()(x0, x1, 1 / 3)[0, 0]), 6)
    0.5

    Source: Building Normalizing Flows with Stochastic Interpolants, Michael S. Albergo, Eric
        Vanden-Eijnden, 2022, https://arxiv.org/abs/2209.15571
    """

    def _angle(self, t):
        """The angle at times t, and its derivative."""
        return 0.5 * math.pi * t, 0.5 * math.pi

    def __call__(self, x0, x1, t, z=None):
        angle, _ = self._angle(aligned(t, x0))
        return ops.cos(angle) * x0 + ops.sin(angle) * x1

    def velocity(self, x0, x1, t, z=None):
        angle, slope = self._angle(aligned(t, x0))
        return slope * (ops.cos(angle) * x1 - ops.sin(angle) * x0)


@keras.saving.register_keras_serializable(package="keras_ext")
class VariancePreservingInterpolant(TrigonometricInterpolant):
    """The path of a diffusion that preserves the variance, with exact ends.

        x_t = cos(a_t) x0 + sin(a_t) x1,  a_t = pi / 2 arctan(beta_t / alpha_t) / arctan(sigma_1)

    With alpha_t and beta_t alone a little of x0 would be left at time 1, 0.0066 of it for
    "vp_continuous", and the flow would begin at another place than it was trained to. So the angle
    is stretched, by 0.4 percent there. As beta_t is about t^(1/2) near 0, the velocity is infinite at
    0: the one that is given, and trained, there and below is that at 0.001.

    Args:
        schedule: a `Schedule` that preserves the variance, or its name.

    Raises:
        ValueError: for another schedule.

    Example:

    >>> x0, x1 = ops.ones((1, 2)), ops.zeros((1, 2))
    >>> bool(abs(VariancePreservingInterpolant()(x0, x1, 1.0)[0, 0]) < 1e-6)
    True

    Source: Score-Based Generative Modeling through Stochastic Differential Equations, Yang Song et
        al., 2020, https://arxiv.org/abs/2011.13456
    """

    first = NEAR

    def __init__(self, schedule="vp_continuous"):
        self.schedule = schedules.get(schedule)
        if not self.schedule.variance_preserving:
            raise ValueError(
                "Expected a schedule that preserves the variance. "
                f"Received: schedule={self.schedule}"
            )
        # Not of sigma, which may be infinite.
        last = self.schedule.alpha_bar(1.0), self.schedule.beta_bar(1.0)
        self.stretch = float(0.5 * np.pi / np.arctan2(*last[::-1]))

    def _angle(self, t):
        alpha, beta = self.schedule.alpha_bar(t), self.schedule.beta_bar(t)
        late = ops.maximum(t, self.first)
        slopes = self.schedule.slopes(late)
        turn = self.schedule.alpha_bar(late) * slopes[1] - self.schedule.beta_bar(late) * slopes[0]
        return self.stretch * ops.arctan2(beta, alpha), self.stretch * turn

    def get_config(self):
        return {"schedule": serialize_keras_object(self.schedule)}


@keras.saving.register_keras_serializable(package="keras_ext")
class StochasticInterpolant(Interpolant):
    """The straight line with noise of its own: x_t = (1 - t) x0 + t x1 + scale (2 t (1 - t))^(1/2) z.

    The noise fills the space between two data sets that are thin. The derivative of the root is
    infinite at 0 and 1: times stay 0.001 away from both, and the velocity there and beyond is that at
    these times.

    Args:
        scale: float, of the noise.

    Raises:
        ValueError: if the scale is not above 0.

    Example:

    >>> x0, x1, z = ops.zeros((1, 2)), ops.ones((1, 2)), ops.ones((1, 2))
    >>> round(float(StochasticInterpolant()(x0, x1, 0.5, z)[0, 0]), 4)
    1.2071

    Source: Building Normalizing Flows with Stochastic Interpolants, Michael S. Albergo, Eric
        Vanden-Eijnden, 2022, https://arxiv.org/abs/2209.15571; Stochastic Interpolants: A Unifying
        Framework for Flows and Diffusions, Michael S. Albergo, Nicholas M. Boffi, Eric
        Vanden-Eijnden, 2023, https://arxiv.org/abs/2303.08797
    """

    noisy = True
    first, last = NEAR, 1.0 - NEAR

    def __init__(self, scale=1.0):
        self.scale = number("scale", scale)
        if self.scale <= 0:
            raise ValueError(f"Expected scale > 0. Received: scale={scale}")

    def __call__(self, x0, x1, t, z=None):
        t = aligned(t, x0)
        return (1.0 - t) * x0 + t * x1 + self.scale * ops.sqrt(2.0 * t * (1.0 - t)) * self._noise(z)

    def velocity(self, x0, x1, t, z=None):
        t = ops.clip(aligned(t, x0), self.first, self.last)
        slope = (1.0 - 2.0 * t) / ops.sqrt(2.0 * t * (1.0 - t))
        return x1 - x0 + self.scale * slope * self._noise(z)

    def _noise(self, z):
        if z is None:
            raise ValueError(
                "Expected z, standard normal numbers of the shape of x0. Received: z=None"
            )
        return z

    def get_config(self):
        return {"scale": self.scale}


@keras.saving.register_keras_serializable(package="keras_ext")
class FunctionInterpolant(Interpolant):
    """A path that a function gives, whose velocity is computed as its derivative.

    Args:
        function: function `(x0, x1, t) -> x_t` of `keras.ops`, differentiable by t; x0 and x1
            (b, ...), t (b, 1, ...), so that it multiplies them. To be saved it has to be registered
            by `keras.saving.register_keras_serializable`.
        first: float, the least time that is trained, above 0 if the velocity is infinite at 0.
        last: float, the largest time that is trained, below 1 if the velocity is infinite at 1.

    Raises:
        ValueError: if it is no function, and unless 0 <= first < last <= 1. Its ends are checked where a model is made of it.

    Example:

    >>> squared = FunctionInterpolant(lambda x0, x1, t: x0 + t**2 * (x1 - x0))
    >>> float(squared.velocity(ops.zeros((1, 2)), ops.ones((1, 2)), ops.full((1,), 0.5))[0, 0])
    1.0

    Source: Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow,
        Xingchao Liu, Chengyue Gong, Qiang Liu, 2022, https://arxiv.org/abs/2209.03003
    """

    def __init__(self, function, first=0.0, last=1.0):
        if not callable(function):
            raise ValueError(f"Expected a function (x0, x1, t). Received: function={function!r}")
        self.function = function
        self.first, self.last = number("first", first), number("last", last)
        if not 0.0 <= self.first < self.last <= 1.0:
            raise ValueError(f"Expected 0 <= first < last <= 1. Received: {first=}, {last=}")

    def __call__(self, x0, x1, t, z=None):
        return ops.cast(self.function(x0, x1, self._times(t, x0)), "float32")

    def velocity(self, x0, x1, t, z=None):
        t = self._times(t, x0)
        return value_and_derivative(lambda t: ops.cast(self.function(x0, x1, t), "float32"), t)[1]

    def _times(self, t, x0):
        # A time for each sample: a scalar has no place of its own in the derivative.
        return aligned(ops.broadcast_to(ops.cast(t, "float32"), ops.shape(x0)[:1]), x0)

    def get_config(self):
        function = serialize_keras_object(self.function)
        return {"function": function, "first": self.first, "last": self.last}

    def __repr__(self):
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        return f"FunctionInterpolant({name})"

    @classmethod
    def from_config(cls, config, custom_objects=None):
        function = deserialize_keras_object(config["function"], custom_objects)
        return cls(**{**config, "function": function})


NAMES = {
    "linear": LinearInterpolant,
    "trigonometric": TrigonometricInterpolant,
    "variance_preserving": VariancePreservingInterpolant,
    "stochastic": StochasticInterpolant,
}
"""Name -> class."""


def get(interpolant):
    """An interpolant, by its name, its serialised config, a function, or itself.

    Args:
        interpolant: an `Interpolant`, a name of `NAMES`, what `serialize_keras_object` gives of an
            interpolant, or a function `(x0, x1, t)`, see `FunctionInterpolant`.

    Returns:
        An `Interpolant`.

    Raises:
        ValueError: for anything else.

    Example:

    >>> get("linear")
    LinearInterpolant()
    """
    if isinstance(interpolant, dict):
        interpolant = deserialize_keras_object(interpolant)
    if isinstance(interpolant, str) and interpolant in NAMES:
        return NAMES[interpolant]()
    if isinstance(interpolant, Interpolant):
        return interpolant
    if not callable(interpolant) or isinstance(interpolant, type):
        raise ValueError(
            f"Expected an Interpolant, its config, a function (x0, x1, t), or a name of "
            f"{', '.join(NAMES)}. Received: interpolant={interpolant!r}"
        )
    return FunctionInterpolant(interpolant)


def check_ends(interpolant, shape, tolerance=1e-4):
    """Refuses a path that does not go from x0 to x1, by its values for random ends.

    Args:
        interpolant: an `Interpolant`.
        shape: tuple, that of one sample.
        tolerance: float, the largest difference that is let pass; the ends are standard normal.

    Raises:
        ValueError: for wrong ends; it says which and by how much, and for another shape of x_t.

    Example:

    >>> check_ends(get("trigonometric"), (2,))
    """
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(3, 4, *shape)).astype("float32")
    x0, x1, z = (ops.convert_to_tensor(each) for each in draws)
    for t, name, expected in ((0.0, "x0", draws[0]), (1.0, "x1", draws[1])):
        found = ops.convert_to_numpy(interpolant(x0, x1, ops.full((4,), t, "float32"), z))
        if found.shape != expected.shape:
            raise ValueError(
                f"Expected an interpolant that gives the shape of x0, {expected.shape}. "
                f"Received: shape={found.shape} of {interpolant}"
            )
        off = float(np.max(np.abs(found - expected)))
        if not off <= tolerance:  # nor NaN
            raise ValueError(
                f"The interpolant is off by {off:.3g} at t = {t:g}. Expected I(x0, x1, {t:g}) = "
                f"{name}. Received: interpolant={interpolant}"
            )
    for name in ("first", "last"):
        t = ops.full((4,), getattr(interpolant, name), "float32")
        if not np.all(np.isfinite(ops.convert_to_numpy(interpolant.velocity(x0, x1, t, z)))):
            raise ValueError(
                f"The velocity of the interpolant is not finite at t={float(t[0]):g}, its {name} time. "
                f"Expected FunctionInterpolant(function, {name}=...) with another. "
                f"Received: interpolant={interpolant}"
            )
