"""The log-likelihood of data, along the probability flow equation."""

import functools
import math

import numpy as np
from keras import ops

from keras_ext.diffusion import schedules
from keras_ext.diffusion.autodiff import value_and_trace
from keras_ext.diffusion.checks import checked_noise, is_traced, known
from keras_ext.diffusion.linear_steps import call
from keras_ext.diffusion.noise import random_signs, seed_pair
from keras_ext.diffusion.predictions import to_x0
from keras_ext.diffusion.sample_result import SampleResult, finished, finite, first_bad, none_bad
from keras_ext.ops.settings import whole

# The classical Runge-Kutta method: places of the stages, factors of their slopes, weights.
PLACES, FACTORS, WEIGHTS = (0.0, 0.5, 0.5, 1.0), (0.5, 0.5, 1.0, 0.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6)


def _public(function):
    """Gives the numbers alone; `compiled` calls what is wrapped."""

    @functools.wraps(function)
    def public(*args, **arguments):
        return finished(*function(*args, **arguments)).x

    return public


@_public
def log_likelihood(
    denoiser,
    schedule,
    x,
    steps=50,
    prediction="eps",
    divergence="exact",
    probes=1,
    seed=None,
    spacing="quadratic",
    start=1.0,
    end=1e-5,
    conditions=None,
):
    """The logarithm of the density that the probability flow equation gives to data.

    With the angle a = arctan(beta / alpha) for time and z = x / (alpha^2 + beta^2)^(1/2), the
    equation of every schedule is dz / da = v(z, a), v = cos(a) eps - sin(a) x0, bounded from data to
    noise, also where nothing of the data is left. So, with d numbers in a sample,

        log p(x) = log N(x_start; 0, beta_start^2) + d log(r_start / r_end) + int div v da,
        r = (alpha^2 + beta^2)^(1/2)

    by the classical Runge-Kutta method, four calls a step, in float32.

    What it is not:

    - Where the equation ends, at `start`, N(0, beta_start^2) stands for the distribution of the noisy
      data, whose mean is alpha_start times that of the data. A sample is wrong by about
      alpha_start |mean| / beta_start nat, the average by the square of that: 1e-3 and less for data of
      some 1 and "vp_continuous", whose alpha at 1 is 0.0066. For "ve" beta is 50: data that are large
      beside it have no such likelihood.
    - x is taken as data with the noise that the schedule has at `end`. For "ve" and "edm" that
      is at least their `low`: the density is that of noisy data. Below the first step of a discrete
      schedule, 1 / steps, a network that was trained at its steps has seen nothing: `end=1 / steps`.
    - For a network it is the likelihood of its equation, not of another sampler's samples.

    To compile it: `compiled(log_likelihood, denoiser, schedule, 50)(x).x`.

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`, of tensors of the backend, each sample
            of its own x and t alone.
        schedule: a `Schedule` or its name.
        x: (b, ...) float, data.
        steps: int, number of steps.
        prediction: str, what the denoiser predicts. "eps" and "score" need a `start` at which
            something of the data is left: for "straight" 0.999.
        divergence: str. "exact": the trace of the derivative, at the price of d backward passes a
            call. "hutchinson": an unbiased estimate, v^T J v, with random signs v that are the same
            throughout the solution; one backward pass a probe.
        probes: int, how many are averaged by "hutchinson"; its deviation falls as probes^(-1/2).
        seed: int, (2,) integers, or None for a random one, of the probes. Those of a sample are a
            function of the seed and its place in the batch alone.
        spacing: str or list of times, which begin at `start` and end at `end`; see `Schedule.grid`.
            "quadratic" has most of the knots near the data.
        start: float, the time of noise.
        end: float above 0, the time of the data.
        conditions: dict of further arguments of the denoiser, or None: the likelihood given these.

    Returns:
        (b,) float32, nats.

    Raises:
        ValueError: for bad x, steps, spacing, times or prediction, an unknown divergence, several
            probes of the exact one, and a denoiser that gives NaN (the error names the step, counted
            from the data) or in which no gradient reaches x.

    Example:

    >>> import keras
    >>> from keras_ext.diffusion import log_likelihood, schedules
    >>> cosine = schedules.get("cosine")
    >>> def denoiser(x, t):  # the data are standard normal
    ...     return cosine.beta_bar(t)[:, None] * x
    >>> nats = log_likelihood(denoiser, cosine, np.zeros((1, 2), "float32"), steps=10)
    >>> bool(abs(float(nats[0]) + np.log(2 * np.pi)) < 1e-4)
    True

    Source: Score-Based Generative Modeling through Stochastic Differential Equations, Yang Song et
        al., 2020, https://arxiv.org/abs/2011.13456
    """
    schedule = schedules.get(schedule)
    x = checked_noise(x, "x")
    known("divergence", divergence, ("exact", "hutchinson"))
    if whole("probes", probes) != 1 and divergence == "exact":
        raise ValueError(f'Expected probes with "hutchinson" only. Received: probes={probes}')
    if not 0 < end < start <= 1:
        raise ValueError(f"Expected 0 < end < start <= 1. Received: start={start}, end={end}")
    times = schedule.grid(steps, spacing, start, end)[::-1]
    size, seed = math.prod(x.shape[1:]), seed_pair(seed)

    def direction(i):
        if divergence == "hutchinson":
            return random_signs(seed, i, ops.shape(x)) / math.sqrt(probes)
        unit = ops.reshape(ops.one_hot(ops.cast(i, "int32"), size), (1, *x.shape[1:]))
        return ops.broadcast_to(unit, ops.shape(x))

    def slope(z, row):
        count = probes if divergence == "hutchinson" else size
        value, trace = value_and_trace(
            lambda x: call(denoiser, x, row[0], conditions), row[1] * z, direction, count
        )
        return row[2] * z + row[3] * value, size * row[2] + row[1] * row[3] * trace

    alpha, beta = schedule.levels(times)
    radius = np.hypot(alpha, beta)
    z, integral, bad = _solved(slope, _table(schedule, times, prediction), x / float(radius[0]))
    scale = float(beta[-1] / radius[-1])
    squares = ops.sum(ops.square(z / scale), axis=tuple(range(1, len(x.shape))))
    constant = size * (0.5 * math.log(2 * math.pi) + math.log(scale * radius[0]))
    nats = integral - 0.5 * squares - float(constant)
    return SampleResult(nats, None, 4 * steps), bad


def _table(schedule, times, prediction):
    """A row a stage: time, factors, h times factor and weight, whether it is the first or last.

    v = c z + e f(r z): from x0 = p x + q f and v = (cos(a) z - x0) / sin(a).
    """
    angles = np.arctan2(*schedule.levels(times)[::-1])
    h = np.diff(angles)
    stages = []
    for i, place in enumerate(PLACES):
        if place in (0.0, 1.0):
            t = times[1:] if place else times[:-1]
        else:
            t = schedule.t_of_sigma(np.tan(angles[:-1] + place * h))
        alpha, beta = schedule.levels(t)
        p, q = to_x0(schedule, prediction, t)
        r = np.hypot(alpha, beta)
        c, e = (alpha / r - p * r) * r / beta, -q * r / beta
        ends = [np.full(len(h), float(i == 0)), np.full(len(h), float(i == 3))]
        stages.append(np.stack([t, r, c, e, FACTORS[i] * h, WEIGHTS[i] * h, *ends], axis=-1))
    # (stages, steps, columns) -> (rows, columns)
    return np.stack(stages, axis=1).reshape(len(h) * 4, -1).astype("float32")


def _solved(slope, table, z):
    """z at the end, the integral of the divergence, and the first step with a NaN, or -1."""

    def body(i, state, row):
        z, base, added, integral, bad = state
        v, trace = slope(z, row)
        base = row[6] * z + (1.0 - row[6]) * base
        added = (1.0 - row[6]) * added + row[5] * v
        z = base + row[4] * v + row[7] * added
        integral = integral + row[5] * trace
        return z, base, added, integral, first_bad(finite(integral), i // 4, bad)

    zeros = ops.zeros_like(ops.sum(z, axis=tuple(range(1, len(z.shape)))))
    state = (z, z, ops.zeros_like(z), zeros, none_bad())
    if is_traced():
        rows = ops.convert_to_tensor(table)
        state = ops.fori_loop(
            0, len(table), lambda i, state: body(i, state, ops.take(rows, i, axis=0)), state
        )
    else:
        for i, row in enumerate(table.tolist()):
            state = body(i, state, row)
            if int(state[-1]) >= 0:
                break
    return state[0], state[3], state[4]
