"""Whether a kernel and its ratio are a flow, tried at random points."""

import math

import numpy as np
from keras import ops

from keras_ext.diffusion.autodiff import pulled_back, value_and_derivative, value_and_trace

SOON = 1e-4
LARGEST_START = 0.1


def check_kernel(sample, ratio, log_density, x0, seed, tolerance):
    """Refuses what violates a condition of `greens_field`.

    Args:
        sample: function `(x0, seed, t) -> (b, ...)`.
        ratio: function `(x, x0, t) -> (b, ...)`.
        log_density: function `(x, x0, t) -> (b,)`.
        x0: (b, ...) float32, data.
        seed: int.
        tolerance: float.

    Returns:
        Dict of what was found, see `GreensField.check`.

    Raises:
        ValueError: that says by how much a condition fails.
    """
    found = {"continuity": _continuity(sample, ratio, log_density, x0, seed)}
    found["mass"], found["mass_error"] = _mass(sample, log_density, x0, seed)
    near, far = (np.median(_lengths(sample(x0, seed, np.float32(t)) - x0)) for t in (SOON, 1.0))
    found["start"] = float(near / far)
    conditions = (
        ("continuity", "d log G1 / dt + ratio . grad log G1 + div ratio = 0", tolerance),
        ("mass", "integral of G1 = 1, for the density that is drawn from", None),
        ("start", "G1 is a point at t = 0", LARGEST_START),
    )
    for name, condition, limit in conditions:
        if limit is None:
            limit = tolerance + 5.0 * found["mass_error"]
        if not abs(found[name]) <= limit:  # NaN, too
            raise ValueError(
                f"This is no flow: {condition} does not hold. Expected {name} of at most "
                f"{limit:.2g}. Received: {name}={found[name]:.3g}"
            )
    return found


def _continuity(sample, ratio, log_density, x0, seed):
    """The largest of |sum of the three terms| / sum of their sizes."""
    count, size = x0.shape[0], math.prod(x0.shape[1:])
    t = np.random.default_rng(seed).uniform(0.05, 0.95, count).astype("float32")
    t = ops.convert_to_tensor(t)
    x = sample(x0, seed, t)

    def unit(i):
        one = ops.reshape(ops.one_hot(ops.cast(i, "int32"), size), (1, *x0.shape[1:]))
        return ops.broadcast_to(one, x0.shape)

    density, product = pulled_back(lambda x: log_density(x, x0, t), x)
    velocity, divergence = value_and_trace(lambda x: ratio(x, x0, t), x, unit, size)
    change = value_and_derivative(lambda t: log_density(x, x0, t), t)[1]
    carried = velocity * product(ops.ones_like(density))
    terms = [change, ops.sum(ops.reshape(carried, (count, size)), axis=-1), divergence]
    terms = np.stack([ops.convert_to_numpy(each).astype("float64") for each in terms])
    sizes = np.abs(terms).sum(axis=0)
    return float(np.max(np.abs(terms.sum(axis=0)) / np.where(sizes == 0, 1.0, sizes)))


def _mass(sample, log_density, x0, seed):
    """The mean of h(x) / G_1(x), from 1, and its standard error; the worst of three times.

    That is the integral of h over what `sample` draws from if its density is G_1. h is a Gaussian
    that is narrower than the samples: then the ratio is bounded where G_1 has heavier tails.
    """
    one = ops.repeat(x0[:1], x0.shape[0], axis=0)
    worst = None
    for i, t in enumerate((0.25, 0.5, 0.75)):
        x = sample(one, seed + 1 + i, np.float32(t))
        found = log_density(x, one, ops.full((x0.shape[0],), t, "float32"))
        x = ops.convert_to_numpy(x).astype("float64").reshape(x0.shape[0], -1)
        centred = x - np.median(x, axis=0)
        width = np.median(np.abs(centred), axis=0)  # of a normal distribution 0.67 deviations
        log_h = -0.5 * np.sum((centred / width) ** 2 + np.log(2 * np.pi * width**2), axis=-1)
        weights = np.exp(log_h - ops.convert_to_numpy(found))
        deviation, error = weights.mean() - 1.0, weights.std() / math.sqrt(len(weights))
        # The worst beside its error; NaN is.
        if worst is None or not abs(deviation) - 5.0 * error <= abs(worst[0]) - 5.0 * worst[1]:
            worst = float(deviation), float(error)
    return worst


def _lengths(x):
    x = ops.convert_to_numpy(x)
    return np.linalg.norm(x.reshape(len(x), -1), axis=-1)
