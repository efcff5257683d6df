"""Which times a sampler with the optimal variance should stand at."""

import numpy as np

from keras_ext.diffusion import schedules
from keras_ext.ops.settings import whole


def optimal_times(variance, schedule, steps, candidates=None, final_noise=False):
    """The knots for which the bound on the likelihood of `ddpm` with a variance is the best.

    The least of `hops_bound` over all lists of steps + 1 candidates that begin at the largest and
    end with 0, found as a shortest path: a list of k hops to a knot is the best one of k - 1 hops to
    some knot above, and one hop. This is (n^2 steps) operations for n candidates.

    Without the final noise, the last but one knot is the smallest candidate: what the last hop drops
    is then little. With it, it is chosen with the others.

    Args:
        variance: an object with `sigma_bar2(times)`, such as `ReverseVariance`.
        schedule: a `Schedule` or its name.
        steps: int, number of hops.
        candidates: list of at least `steps` times in (0, 1]; None: i / n, i = 1 ... n, with the steps
            n of a discrete schedule, or 1000.
        final_noise: bool, as for the sampler.

    Returns:
        (steps + 1,) float64, strictly decreasing, the argument `spacing` of a sampler.

    Raises:
        ValueError: for fewer candidates than steps, or ones out of range, and for a variance of
            another schedule.

    Example:

    >>> import keras_ext
    >>> table = keras_ext.diffusion.ReverseVariance(
    ...     [0.1, 0.5, 0.9], [0.01, 0.1, 0.3], [0.0] * 3, 100, "cosine"
    ... )
    >>> keras_ext.diffusion.optimal_times(table, "cosine", 3, candidates=[0.1, 0.3, 0.5, 1.0])
    array([1. , 0.3, 0.1, 0. ])

    Source: Analytic-DPM: an Analytic Estimate of the Optimal Reverse Variance in Diffusion
        Probabilistic Models, Fan Bao, Chongxuan Li, Jun Zhu, Bo Zhang, 2022,
        https://arxiv.org/abs/2201.06503
    """
    schedule, steps = schedules.get(schedule), whole("steps", steps)
    if candidates is None:
        count = schedule.steps or 1000
        candidates = np.arange(1, count + 1) / count
    times = np.unique(np.asarray(candidates, "float64"))[::-1]
    if len(times) < steps or not (times[-1] > 0 and times[0] <= 1):
        raise ValueError(
            f"Expected at least steps={steps} candidates in (0, 1]. Received: {times[::-1]}"
        )
    last, hops = _costs(variance, schedule, times)
    if not final_noise and steps > 1:
        last = np.where(np.arange(len(times)) == len(times) - 1, last, np.inf)
    best = np.where(np.arange(len(times)) == 0, 0.0, np.inf)  # of no hop: at the first knot
    before = []
    for _ in range(steps - 1):
        through = best[:, None] + hops
        before.append(np.argmin(through, axis=0))
        best = np.min(through, axis=0)
    path = [int(np.argmin(best + last))]
    for places in reversed(before):
        path.append(int(places[path[-1]]))
    return np.append(times[path[::-1]], 0.0)


def hops_bound(variance, schedule, times):
    """The upper bound on -log p(x0) / d that `ddpm` with the optimal variance and final noise has.

    In nats, without the term for the first knot, KL(q(x_1 | x0) | p(x_1)) / d, which no hop changes.

    The hop from r to q has the mean kappa x_r + gamma x0' and variance s^2 in the model, and
    kappa x_r + gamma x0 and sigma^2 in the posterior. For one sample,

        KL = d / 2 (sigma^2 / s^2 - 1 + log(s^2 / sigma^2)) + gamma^2 |x0 - x0'|^2 / (2 s^2)

    With s^2 = sigma^2 + gamma^2 sigma_bar2(r), sigma_bar2 = E|x0 - x0'|^2 / d, what is not the
    logarithm adds up to 0 in the mean. For eta = 1 gamma^2 / sigma^2 is the gain of the ratio of
    signal to noise, 1 / sigma_q^2 - 1 / sigma_r^2 (here sigma = beta / alpha), so that

        E KL / d = 1/2 log(1 + sigma_bar2(r) (1 / sigma_q^2 - 1 / sigma_r^2))

    The last hop, from r to the data, has no posterior; -E log p(x0 | x_r) / d is
    1/2 log(2 pi e sigma_bar2(r)).

    Args:
        variance: an object with `sigma_bar2(times)`.
        schedule: a `Schedule` or its name.
        times: (n,) floats that decrease, the last of them 0.

    Returns:
        float.

    Raises:
        ValueError: for other times, and for a variance of another schedule.

    Example:

    >>> import keras_ext
    >>> table = keras_ext.diffusion.ReverseVariance([0.5], [0.1], [0.0], 100, "cosine")
    >>> round(keras_ext.diffusion.hops_bound(table, "cosine", [0.5, 0.0]), 3)
    0.268

    Source: Analytic-DPM: an Analytic Estimate of the Optimal Reverse Variance in Diffusion
        Probabilistic Models, Fan Bao, Chongxuan Li, Jun Zhu, Bo Zhang, 2022,
        https://arxiv.org/abs/2201.06503
    """
    times = np.asarray(times, "float64")
    if times.ndim != 1 or len(times) < 2 or times[-1] != 0 or not np.all(np.diff(times) < 0):
        raise ValueError(f"Expected times that decrease and end with 0. Received: times={times}")
    last, hops = _costs(variance, schedules.get(schedule), times[:-1])
    return float(np.trace(hops, offset=1) + last[-1])


def _costs(variance, schedule, times):
    """Of the last hop from each knot, (n,), and of the hop from each to each, (n, n)."""
    schedules.check_made_for(variance, schedule)
    ratio = 1.0 / schedule.sigma(times) ** 2
    values = np.maximum(variance.sigma_bar2(times), 1e-300)
    gain = ratio[None, :] - ratio[:, None]
    upwards = gain <= 0
    hops = 0.5 * np.log1p(values[:, None] * np.where(upwards, 0.0, gain))
    return 0.5 * np.log(2.0 * np.pi * np.e * values), np.where(upwards, np.inf, hops)
