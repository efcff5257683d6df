"""Levels of noise of a sample's own along the lines of a Poisson field."""

import math

from keras import ops


def own_levels(noise, D):
    """By what the levels of sigma are multiplied for each sample, so that none is left on its way.

        k = min(1, ((d + D) / (D + |e|^2))^(1/2)),  x = sigma e at the first level sigma

    In all d + D dimensions such a point is at a distance of sigma (D + |e|^2)^(1/2) from the origin.
    Far from the data its line goes straight there: k x at the level k sigma is a point of the line, and
    at most as far away as sigma (d + D)^(1/2). By symmetry it arrives at k times the sigma at which
    that of another direction does, so it has to be followed to k times the last level.

    A solver of dx / d sigma = (x - x0) / sigma does the same at k sigma as at sigma, as only ratios of
    levels count: it begins with k x, and the denoiser is told the time of k sigma, `own_times`.

    Args:
        noise: (b, ...) float32, e.
        D: float of at least 1; as it grows k becomes 1.

    Returns:
        (b,) float32.

    Example:

    >>> import numpy as np
    >>> noise = np.array([[1.0, 0.0], [100.0, 0.0]], "float32")
    >>> [f"{k:.3f}" for k in np.array(own_levels(noise, 1.0))]  # (3 / 10001)^(1/2)
    ['1.000', '0.017']

    Source: Poisson Flow Generative Models, Yilun Xu, Ziming Liu, Max Tegmark, Tommi Jaakkola, 2022,
        https://arxiv.org/abs/2209.11178, whose prior is that of a sphere, moved along straight lines
    """
    axes = tuple(range(1, len(noise.shape)))
    mean = (D + ops.sum(ops.square(noise), axis=axes)) / (D + math.prod(noise.shape[1:]))
    return ops.minimum(1.0, ops.rsqrt(mean))


def own_times(schedule, t, k):
    """The times at which sigma is k times what it is at times t, or 0 where none is.

    Args:
        schedule: an `EDMSchedule`.
        t: (b,) float32.
        k: (b,) float32, at most 1.

    Returns:
        (b,) float32.

    Example:

    >>> from keras_ext.diffusion import schedules
    >>> t = ops.convert_to_tensor([1.0, 0.0])
    >>> [round(float(each), 4) for each in own_times(schedules.get("edm"), t, 0.5 + 0.5 * t)]
    [1.0, 0.0]
    """
    # Rounding must not lead beyond t, up to which the network is trained.
    return ops.clip(schedule.t_of_sigma(k * schedule.sigma(t)), 0.0, t)
