"""Noise of the Poisson kernel: a random direction, and a length with a heavy tail."""

import math

import numpy as np
from keras import ops

from keras_ext.diffusion.monotone_cubic import MonotoneCubic
from keras_ext.diffusion.noise import standard_normal, uniform
from keras_ext.ops.settings import number

# log(u / (1 - u)) of the numbers that `uniform` draws is within 16.7.
LARGEST_LOGIT = 17.0
PIECES = 1024
POINTS = 2**14


def poisson_noise(seed, draw, shape, D, quantile=1.0):
    """Noise e of which x_0 + sigma e is distributed as the Poisson kernel in d + D dimensions.

        density of e ~ (D + |e|^2)^(-(d + D) / 2)
        e = length v,  v uniform on the sphere,  length^2 = D B / (1 - B),  B ~ Beta(d/2, D/2)

    which is Student's t distribution with D degrees of freedom in d dimensions: moments of order D
    and above are infinite. As D grows it becomes standard normal.

    Args:
        seed: (2,) uint32, see `seed_pair`.
        draw: int or int scalar, counts the calls under a seed.
        shape: (b, ...), of which all but b are ints; d is their product.
        D: float of at least 1, or inf: `standard_normal`, of the same numbers.
        quantile: float in (0, 1]; below 1, what is longer than this quantile of the lengths is not
            drawn.

    Returns:
        float32 of that shape, a function of seed and place.

    Example:

    >>> from keras_ext.diffusion.noise import seed_pair
    >>> lengths = np.linalg.norm(poisson_noise(seed_pair(0), 0, (1000, 2), 1.0, 0.99), axis=-1)
    >>> bool(1.5 < np.median(lengths) < 2.0 and 30 < lengths.max() < 100)
    True

    Source: PFGM++: Unlocking the Potential of Physics-Inspired Generative Models, Yilun Xu et al.,
        2023, https://arxiv.org/abs/2302.04265
    """
    if D == math.inf:
        return standard_normal(seed, draw, shape)
    count, size = shape[0], math.prod(shape[1:])
    draws = uniform(seed, draw, (count, size + 1))
    z = ops.erfinv(2.0 * draws[:, :-1] - 1.0)  # normal: its direction is uniform
    scale = lengths(quantile * draws[:, -1:], size, D) * ops.rsqrt(
        ops.sum(ops.square(z), axis=-1, keepdims=True)
    )
    return ops.reshape(scale * z, shape)


def log_density_of_noise(noise, D):
    """The logarithm of the density of `poisson_noise`.

    Args:
        noise: (b, d) float32.
        D: float of at least 1, or inf.

    Returns:
        (b,) float32, nats.

    Example:

    >>> round(float(log_density_of_noise(np.zeros((1, 1), "float32"), 1.0)[0]), 4)  # -log(pi)
    -1.1447
    """
    size, squares = noise.shape[-1], ops.sum(ops.square(noise), axis=-1)
    if D == math.inf:
        return -0.5 * squares - 0.5 * size * math.log(2.0 * math.pi)
    constant = math.lgamma(0.5 * (size + D)) - math.lgamma(0.5 * D)
    constant -= 0.5 * size * math.log(math.pi * D)
    return constant - 0.5 * (size + D) * ops.log1p(squares / D)


def lengths(shares, size, D):
    """The length that is not exceeded by a share of the noise.

    Args:
        shares: float32 tensor of numbers between 0 and 1.
        size: int, the number of dimensions d.
        D: float of at least 1.

    Returns:
        float32 of the same shape.

    Example:

    >>> shares = np.array([0.5], "float32")
    >>> round(float(lengths(shares, 2, 1.0)[0]), 3)  # (0.5^-2 - 1)^(1/2)
    1.732
    """
    shares = ops.cast(shares, "float32")
    logits = ops.log(shares) - ops.log1p(-shares)
    place = ops.clip(0.5 + 0.5 * logits / LARGEST_LOGIT, 0.0, 1.0)
    return ops.exp(0.5 * MonotoneCubic(log_squares(size, D))(ops, place)[0])


def log_squares(size, D):
    """Quantiles of log length^2 where log(u / (1 - u)) of their shares u is evenly spaced.

    Both tails of log(B / (1 - B)) are exponential, so that its quantiles are smooth in that
    variable, and straight at both ends.

    Args:
        size: int, the number of dimensions d.
        D: float of at least 1.

    Returns:
        (PIECES + 1,) float64.
    """
    a, b = 0.5 * size, 0.5 * D
    mode = math.log(a / b)

    def log_density(odds):
        return a * (odds - mode) - (a + b) * (np.logaddexp(0.0, odds) - np.logaddexp(0.0, mode))

    def reach(sign):
        """How far from the mode the density is less than e^-60 of that there."""
        width = math.sqrt(1.0 / a + 1.0 / b)
        while log_density(mode + sign * width) > -60.0:
            width *= 2.0
        return width

    odds = mode + np.linspace(-reach(-1), reach(1), POINTS + 1)
    density = np.exp(log_density(odds))
    pieces = density[1:] + density[:-1]
    # Each tail is summed from its own end: neither is 1 minus something near 1.
    below, above = np.cumsum(pieces)[:-1], np.cumsum(pieces[::-1])[::-1][1:]
    with np.errstate(divide="ignore"):  # beyond the tails both may be 0
        logits = np.log(below) - np.log(above)
    places = np.linspace(-LARGEST_LOGIT, LARGEST_LOGIT, PIECES + 1)
    return math.log(D) + np.interp(places, logits, odds[1:-1])


def dimensions(D):
    """D as a float.

    Args:
        D: an int or a float.

    Returns:
        float of at least 1, or inf.

    Raises:
        ValueError: for anything else.

    Example:

    >>> dimensions(128)
    128.0
    """
    if D == math.inf:
        return math.inf
    if number("D", D) < 1.0:
        raise ValueError(
            "Poisson flow adds D dimensions to those of the data. Expected D of at least 1, or inf. "
            f"Received: D={D}"
        )
    return float(D)
