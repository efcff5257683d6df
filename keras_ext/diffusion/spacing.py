"""Where the knots of a sampler lie in time."""

import numpy as np

from keras_ext.ops.settings import whole

RHO = 7.0
SPACINGS = ("trailing", "leading", "linspace", "quadratic", "logsnr", "karras")


def knots(schedule, steps, spacing="trailing", start=1.0, end=0.0):
    """The times at which a sampler stands; see `Schedule.grid`.

    Args:
        schedule: a `Schedule`.
        steps: int, number of hops.
        spacing: str, or a list of times.
        start: float, the first time.
        end: float, the last time.

    Returns:
        (steps + 1,) float64, strictly decreasing.

    Raises:
        ValueError: see `Schedule.grid`.

    Example:

    >>> from keras_ext.diffusion import schedules
    >>> knots(schedules.get("linear_ho"), 4, "leading").round(3)
    array([0.751, 0.501, 0.251, 0.001, 0.   ])

    Source: Elucidating the Design Space of Diffusion-Based Generative Models, Tero Karras et al.,
        2022, https://arxiv.org/abs/2206.00364 (karras)
    """
    steps = whole("steps", steps)
    if schedule.steps is not None and steps > schedule.steps:
        raise ValueError(
            f"The schedule has {schedule.steps} steps. Expected no more. Received: steps={steps}"
        )
    if not isinstance(spacing, str):
        return _explicit(steps, spacing)
    if spacing not in SPACINGS:
        raise ValueError(
            f"Expected a spacing of {', '.join(SPACINGS)}, or a list of times. "
            f"Received: spacing={spacing!r}"
        )
    if not 0 <= end < start <= 1:
        raise ValueError(
            f"Expected times 0 <= end < start <= 1. Received: start={start}, end={end}"
        )
    tau = min(schedule.tau, (start - end) / steps)
    if spacing in ("trailing", "leading"):
        times = np.linspace(start, end, steps + 1)
        if spacing == "leading":
            times = np.append(np.minimum(times[1:] + tau, start), end)
    elif end > 0:
        times = _equally(schedule, spacing, start, end, steps + 1)
    else:
        times = np.append(_equally(schedule, spacing, start, tau, steps), 0.0)
    return _decreasing(times, spacing)


def _equally(schedule, spacing, start, end, count):
    """Times from `start` to `end`, both exactly, at equal distances of a function of time."""
    if count == 1:
        return np.array([start])

    def sigma(t):
        ratio = schedule.sigma(t)
        return schedule.sigma(t - 1e-3) if np.isinf(ratio) else ratio

    forward, backward = {
        "linspace": (lambda t: t, lambda y: y),
        "quadratic": (np.sqrt, np.square),
        "logsnr": (lambda t: np.log(sigma(t)), lambda y: schedule.t_of_sigma(np.exp(y))),
        "karras": (
            lambda t: sigma(t) ** (1.0 / RHO),
            lambda y: schedule.t_of_sigma(y**RHO),
        ),
    }[spacing]
    inner = backward(np.linspace(forward(start), forward(end), count)[1:-1])
    return np.concatenate([[start], inner, [end]])


def _explicit(steps, times):
    times = np.asarray(times, "float64")
    if times.shape != (steps + 1,) or not np.all((times >= 0) & (times <= 1)):
        raise ValueError(
            f"Expected steps + 1 = {steps + 1} times between 0 and 1. Received: spacing={times}"
        )
    return _decreasing(times, times)


def _decreasing(times, spacing):
    if not np.all(np.diff(times) < 0):
        raise ValueError(f"Expected times that decrease. Received: {times} of spacing={spacing!r}")
    return times
