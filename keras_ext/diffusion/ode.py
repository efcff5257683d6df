"""Sampling by solving the probability flow equation."""

import numpy as np

from keras_ext.diffusion import schedules
from keras_ext.diffusion.checks import checked_noise, is_traced, known
from keras_ext.diffusion.linear_steps import run
from keras_ext.diffusion.ode_steps import SOLVERS, solver_rows, with_last
from keras_ext.diffusion.rk45 import rk45
from keras_ext.diffusion.sample_result import SampleResult, first_bad, none_bad, sampler
from keras_ext.ops.settings import number


@sampler
def ode_sample(
    denoiser,
    schedule,
    noise,
    steps,
    solver="heun",
    prediction="eps",
    spacing="karras",
    start=1.0,
    end=1e-3,
    denoise=True,
    tolerance=1e-4,
    clip_x0=None,
    conditions=None,
    return_trajectory=False,
):
    """Samples by a solver of du / dsigma = eps, in u = x / alpha and sigma = beta / alpha.

    All schedules have the same curves in these coordinates, and Euler's method is DDIM. Network
    calls a step: 1 for "euler", "dpmpp_2m" and "ab2" to "ab4" (Adams and Bashforth, for unequal
    steps), 2 for "heun" and "midpoint" (geometric), 4 for "rk4"; of "rk45" (Dormand and Prince) 6 a
    round, in which each sample makes a step of its own length. A hop from infinite sigma is Euler's,
    one to the data is x0.

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`, see `ddim`.
        schedule: a `Schedule` or its name.
        noise: (b, ...) float, x at time `start`.
        steps: int, number of steps; of "rk45" only the first step is chosen so.
        solver: str.
        prediction: str, what the denoiser predicts.
        spacing: str or list of times, which begin at `start` and end at `end`; see `Schedule.grid`.
        start: float, the first time. Where sigma is in the thousands, as at time 1 of "cosine",
            "karras" spends most steps on what is all noise: `start=schedule.t_of_sigma(80.0)`, with
            `beta_bar(start)` times normal numbers, does not.
        end: float, the time to which the equation is solved, or 0.
        denoise: bool, whether to finish by x0 as predicted at `end`, one more call, where `end` is
            not 0.
        tolerance: float, of "rk45": root mean square of error / (1 + |u|) in a step.
        clip_x0: pair of floats between which the predicted data are held, or None.
        conditions: dict of further arguments of the denoiser, or None.
        return_trajectory: bool, whether to keep the state at all knots; not for "rk45".

    Returns:
        `SampleResult`.

    Raises:
        ValueError: for bad noise, steps, spacing, times or prediction, an unknown solver, and a
            denoiser that gives NaN; the error names the step. So does "rk45" after 1000 rounds.

    Example:

    >>> import keras_ext
    >>> noise = keras.random.normal((4, 2), seed=0)
    >>> keras_ext.diffusion.ode_sample(lambda x, t: x, "cosine", noise, 5, solver="rk4").calls
    21

    Source: Elucidating the Design Space of Diffusion-Based Generative Models, Tero Karras et al.,
        2022, https://arxiv.org/abs/2206.00364; DPM-Solver++, Cheng Lu et al., 2022,
        https://arxiv.org/abs/2211.01095 (dpmpp_2m)
    """
    schedule = schedules.get(schedule)
    x = checked_noise(noise)
    known("solver", solver, SOLVERS)
    times = schedule.grid(steps, spacing, start, end)

    def carried_out(rows, x):
        kept = {"clip_x0": clip_x0, "conditions": conditions}
        kept["return_trajectory"] = return_trajectory
        return run(rows, denoiser, schedule, x, prediction, **kept)

    if solver != "rk45":
        rows = solver_rows(schedule, times, solver)
        return carried_out(with_last(rows, times, schedule) if denoise else rows, x)
    if return_trajectory:
        raise ValueError(
            'The steps of "rk45" differ between samples. Expected return_trajectory=False. '
            "Received: return_trajectory=True"
        )
    options = {"clip_x0": clip_x0, "conditions": conditions}
    options["tolerance"] = number("tolerance", tolerance)
    outer, inner = _split(schedule, times, denoise)
    bad, calls, before = none_bad(), 0, 0
    for part, knots in (("first", outer[0]), ("inner", inner), ("last", outer[1])):
        if knots is None:
            continue
        if part == "inner":
            result, at = rk45(denoiser, schedule, x, knots, prediction, **options)
            rounds = (result.calls - 1) // 6
        else:
            result, at = carried_out(solver_rows(schedule, knots, "euler"), x)
            rounds = 1
        x, calls = result.x, calls + result.calls
        bad = first_bad(at < 0, before + at, bad)
        before = before + rounds
    return SampleResult(x, None, calls if is_traced() else int(calls)), bad


def _split(schedule, times, denoise):
    """The grid without its hops from infinite sigma and to sigma 0, and these; None if not there."""
    first = last = None
    if np.isinf(schedule.sigma(times[0])):
        below = times[0] - 1e-3
        first, times = np.array([times[0], below]), np.append(below, times[times < below])
    if times[-1] == 0:
        times = times[:-1] if len(times) > 2 else np.array([times[0], 0.001 * times[0]])
        denoise = True
    if denoise:
        last = np.array([times[-1], 0.0])
    return (first, last), times
