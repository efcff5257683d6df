"""Sampling in few steps with a knot in each that was learnt."""

from keras import ops

from keras_ext.diffusion import schedules
from keras_ext.diffusion.amed_predictor import check_predictor
from keras_ext.diffusion.amed_steps import (
    AMEDSteps,
    analytic_eps,
    features_at,
    scalars_of,
    start_or_largest,
    written,
)
from keras_ext.diffusion.checks import checked_noise, is_traced
from keras_ext.diffusion.linear_steps import call, repeated
from keras_ext.diffusion.predictions import aligned, convert_prediction
from keras_ext.diffusion.sample_result import SampleResult, finite, first_bad, none_bad, sampler


@sampler
def amed_sample(
    denoiser,
    schedule,
    noise,
    steps,
    predictor,
    solver="dpm2",
    prediction="eps",
    spacing="karras",
    start=None,
    end=1e-3,
    analytic_first=False,
    denoise=True,
    conditions=None,
    return_trajectory=False,
    features_fn=None,
):
    """Samples in few steps, each of which asks the denoiser at a place that was learnt.

    In u = x / alpha and sigma = beta / alpha, where samples move by du / dsigma = eps, with the
    rho, c and a of `AMEDPredictor` for each step:

        s = sigma_q^rho sigma_r^(1 - rho),  u_s = u_r + (s - sigma_r) eps(u_r, sigma_r)
        u_q = u_r + c (sigma_q - sigma_r) a eps(u_s, a s)

    That is "dpm2". The other solvers take the knot s into their grid, and move from u_s, by c times
    their own hop: "euler" (DDIM), "dpmpp" (DPM-Solver++ 2M), "ipndm" (Adams and Bashforth, of order
    3, for unequal steps). All call the denoiser twice a step. With c = a = 1 they are those of
    `ode_sample`: "midpoint" for rho = 1/2, and "euler", "dpmpp_2m" and "ab3" on the finer grid.

    The factor a, as in the code of the source, makes the direction (u_s - x0(u_s, a s)) / s: where
    nearly all is noise, a changes what the denoiser is told and hardly the length of the move.

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`, see `ddim`.
        schedule: a `Schedule` or its name.
        noise: (b, ...) float, x at time `start`: `beta_bar(start)` times normal numbers.
        steps: int, number of steps, that of the predictor.
        predictor: `AMEDPredictor`, trained by an `AMEDTrainer` of the same grid and solver.
        solver: str, "euler", "dpm2", "dpmpp" or "ipndm".
        prediction: str, what the denoiser predicts.
        spacing: str or list of times; see `Schedule.grid`.
        start: float, the first time; None: 1, or where sigma is 80 if that is earlier.
        end: float above 0, the time to which the equation is solved.
        analytic_first: bool, whether the first direction is that of standard normal data,
            sigma u / (1 + sigma^2), which saves a call. At sigma = 80 it hardly differs.
        denoise: bool, whether to finish by x0 as predicted at `end`, one more call.
        conditions: dict of further arguments of the denoiser, or None.
        return_trajectory: bool, whether to keep the state at all knots of the grid.
        features_fn: function `(x, t) -> (b, features_dim)` of x (b, ...) and t (b,), for a predictor
            with `features_dim`, else None. It is called once a step, which `calls` does not count.

    Returns:
        `SampleResult`.

    Raises:
        ValueError: for bad noise, spacing, times or prediction, an unknown solver, a predictor of
            another number of steps, and a denoiser that gives NaN; the error names the step.

    Example:

    >>> import keras_ext
    >>> from keras_ext.diffusion import AMEDPredictor, amed_sample
    >>> noise = keras.random.normal((4, 2), seed=0)
    >>> amed_sample(lambda x, t: x, "cosine", noise, 3, AMEDPredictor(3), denoise=False).calls
    6

    Source: Fast ODE-based Sampling for Diffusion Models in Around 5 Steps, Zhenyu Zhou, Defang Chen,
        Can Wang, Chun Chen, 2023, https://arxiv.org/abs/2312.00094
    """
    schedule = schedules.get(schedule)
    x = checked_noise(noise)
    check_predictor(predictor, steps, features_fn)
    times = schedule.grid(steps, spacing, start_or_largest(schedule, start, spacing), end)
    rule = AMEDSteps(denoiser, schedule, times, solver, prediction, conditions)

    def step(i, state, analytic=False):
        u, past, states, bad = state
        row = rule.row(i)
        t, alpha, sigma = row[:3]
        features = features_at(features_fn, predictor, alpha * u, t)
        scalars = scalars_of(predictor, features, i, row, ops.shape(u)[0])
        direction = analytic_eps(u, sigma) if analytic else rule.eps(u, t, alpha)
        new, between, past = rule.step(u, past, direction, scalars, row)
        states = tuple(written(each, i + 1, new) for each in states)
        return new, past, states, first_bad(finite(between, new), i, bad)

    u = x / float(rule.alpha[0])
    states = (ops.repeat(u[None], steps + 1, axis=0),) if return_trajectory else ()
    state = (u, rule.nothing_past(u), states, none_bad())
    if analytic_first:
        state = step(0, state, analytic=True)
    u, _, states, bad = repeated(steps, step, state, int(analytic_first))
    x = float(rule.alpha[-1]) * u
    calls = 2 * steps - bool(analytic_first) + bool(denoise)
    if return_trajectory:
        alpha = ops.convert_to_tensor(rule.alpha.astype("float32"))
        states = aligned(alpha, states[0]) * states[0]
    if denoise and (is_traced() or int(bad) < 0):
        t = ops.broadcast_to(ops.cast(times[-1], "float32"), ops.shape(x)[:1])
        value = call(denoiser, x, t, conditions)
        x = convert_prediction(value, x, t, schedule, prediction, "x0")
        bad = first_bad(finite(x), steps, bad)
        states = ops.concatenate([states, x[None]]) if return_trajectory else states
    return SampleResult(x, states if return_trajectory else None, calls), bad
