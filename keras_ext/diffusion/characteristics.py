"""A flow from curves that go from each point of the data to each point of the noise."""

import math

import numpy as np
from keras import ops

from keras_ext.diffusion.autodiff import pulled_back, value_and_derivative
from keras_ext.diffusion.greens_field import GreensField
from keras_ext.diffusion.noise import standard_normal
from keras_ext.diffusion.poisson_noise import log_density_of_noise
from keras_ext.diffusion.predictions import aligned


def characteristics(curve, inverse=None, prior=None):
    """A flow that follows, on average, curves x_t = curve(x_0, x_1, t) between data and noise.

        velocity(x, t) = E[d curve / dt | x_t = x]
        G_1 = p_1(x_1) |det d x_1 / d x_t|,  G_>1 / G_1 = d curve / dt,  at fixed x_0 and x_1

    The derivative in time is taken of `curve` itself. A regression on it, by `training_pair`, needs
    no more than the curve; density and exact field need what x_1 leads to a given point.

    Args:
        curve: function `(x0, x1, t) -> (b, ...)`, of t (b,) float32, in `keras.ops`, x0 at t = 0 and
            x1 at t = 1.
        inverse: function `(x, x0, t) -> x1`, the x1 of the curve from x0 through x, in `keras.ops`;
            None: there is no `target` and no `field`.
        prior: pair of functions, `(seed, shape) -> x1` and `x1 -> (b,)`, its log-density; None:
            standard normal.

    Returns:
        `GreensField`, with the methods `sample`, `training_pair`, `target`, `field` and `check`.

    Example:

    >>> def turn(x0, x1, t):
    ...     angle = 0.5 * np.pi * t[:, None]
    ...     return ops.cos(angle) * x0 + ops.sin(angle) * x1
    >>> flow = characteristics(turn)
    >>> x, velocity = flow.training_pair(np.ones((3, 2), "float32"), seed=0, t=0.5)
    >>> tuple(velocity.shape), flow.check()
    ((3, 2), {})

    Source: Jianlin Su, "Building an ODE by characteristic curves" (in Chinese), 2022,
        https://kexue.fm/archives/9379
    """
    if not callable(curve):
        raise ValueError(f"Expected curve to be a function. Received: curve={curve!r}")
    draw, log_prior = (_normal, _log_normal) if prior is None else prior

    def moved(x0, x1, t):
        return value_and_derivative(lambda t: curve(x0, x1, t), t)

    def pair(x0, seed, t):
        return moved(x0, draw(seed, ops.shape(x0)), t)

    def check_curve(x0, seed, tolerance):
        x1 = draw(seed, ops.shape(x0))
        zeros = ops.zeros(x0.shape[:1])
        _check_near("curve(x0, x1, 0) = x0", curve(x0, x1, zeros), x0, tolerance)
        _check_near("curve(x0, x1, 1) = x1", curve(x0, x1, zeros + 1.0), x1, tolerance)
        if inverse is not None:
            found = inverse(curve(x0, x1, zeros + 0.5), x0, zeros + 0.5)
            _check_near("inverse(curve(x0, x1, t), x0, t) = x1", found, x1, tolerance)

    if inverse is None:
        return GreensField(pair, check_more=check_curve)

    def ratio(x, x0, t):
        return moved(x0, inverse(x, x0, t), t)[1]

    def log_density(x, x0, t):
        x1, product = pulled_back(lambda x: inverse(x, x0, t), x)
        size = math.prod(x.shape[1:])
        rows = []  # of the Jacobian
        for i in range(size):
            unit = ops.reshape(ops.one_hot([i], size), (1, *x.shape[1:]))
            row = product(ops.broadcast_to(unit, ops.shape(x)))
            rows.append(ops.reshape(row, (-1, size)))
        return log_prior(x1) + ops.slogdet(ops.stack(rows, axis=1))[1]

    return GreensField(pair, ratio, log_density, check_curve)


def straight_lines(prior=None):
    """Straight lines from data to noise, (1 - t) x_0 + t x_1: the flow of rectified flow.

    Args:
        prior: see `characteristics`.

    Returns:
        `GreensField`.

    Example:

    >>> velocity = straight_lines().field(np.zeros((1, 2), "float32"))
    >>> float(velocity(np.ones((1, 2), "float32"), 0.25)[0, 0])
    4.0

    Source: Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow,
        Xingchao Liu, Chengyue Gong, Qiang Liu, 2022, https://arxiv.org/abs/2209.03003
    """

    def curve(x0, x1, t):
        return (1.0 - aligned(t, x0)) * x0 + aligned(t, x0) * x1

    def inverse(x, x0, t):
        return (x - (1.0 - aligned(t, x0)) * x0) / aligned(t, x0)

    return characteristics(curve, inverse, prior)


def _normal(seed, shape):
    return standard_normal(seed, 0, shape)


def _log_normal(x1):
    return log_density_of_noise(ops.reshape(x1, (-1, math.prod(x1.shape[1:]))), math.inf)


def _check_near(condition, found, expected, tolerance):
    """Refuses curves that end elsewhere."""
    distance = float(np.max(np.abs(ops.convert_to_numpy(ops.subtract(found, expected)))))
    if not distance <= tolerance:
        raise ValueError(
            f"These are no curves from data to noise: {condition} does not hold. Expected a largest "
            f"distance of at most {tolerance:.2g}. Received: {distance:.3g}"
        )
