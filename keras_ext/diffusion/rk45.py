"""The Dormand-Prince method, with a step size of its own for each sample."""

import numpy as np
from keras import ops

from keras_ext.diffusion.checks import is_traced
from keras_ext.diffusion.linear_steps import call, clipped
from keras_ext.diffusion.predictions import aligned, to_x0
from keras_ext.diffusion.sample_result import SampleResult, finite, first_bad, none_bad

STAGES = np.array(
    [
        [1 / 5, 0, 0, 0, 0, 0],
        [3 / 40, 9 / 40, 0, 0, 0, 0],
        [44 / 45, -56 / 15, 32 / 9, 0, 0, 0],
        [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729, 0, 0],
        [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656, 0],
        [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
    ]
)
PLACES = np.array([1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0])
ERROR = np.array([71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40])
LIMIT = 1000
"""Rounds of six calls after which a solution is given up."""


def rk45(denoiser, schedule, x, times, prediction, *, tolerance, clip_x0, conditions):
    """Solves du / dlog(sigma) = sigma eps with steps whose estimated error is below a tolerance.

    A step is taken where the root mean square, over a sample, of error / (1 + |u|) is at most the
    tolerance. Each sample has steps of its own, so that none depends on the others of the batch;
    rounds go on until all are at the end.

    Args:
        denoiser: function `(x, t, **conditions)`.
        schedule: a `Schedule`.
        x: (b, ...) float32, at the first of the times.
        times: (n + 1,) float64; sigma is finite at the first and above 0 at the last. The first
            step is as long as that from the first to the second.
        prediction: str.
        tolerance: float.
        clip_x0: pair of floats, or None.
        conditions: dict, or None.

    Returns:
        `SampleResult` at the last of the times, and the step with a NaN, or -1.

    Source: A family of embedded Runge-Kutta formulae, J. R. Dormand, P. J. Prince, 1980,
        https://doi.org/10.1016/0771-050X(80)90013-3
    """
    alpha, beta = schedule.levels(times)
    logs = (np.log(beta) - np.log(alpha)).astype("float32")
    last = float(logs[-1])

    def slope(u, log_sigma):
        sigma = ops.exp(log_sigma)
        t = schedule.t_of_sigma(sigma)
        a = aligned(schedule.alpha_bar(t), x)
        p, q = to_x0(schedule, prediction, t)
        value = call(denoiser, a * u, t, conditions)
        x0 = clipped(aligned(p, x) * a * u + aligned(q, x) * value, clip_x0)
        return u - x0  # sigma eps

    axes = tuple(range(1, len(x.shape)))

    def body(state):
        u, k, place, step, taken, bad = state
        # Exactly to the end where the step goes there.
        near = place + step <= last
        step = ops.where(near, last - place, step)
        stages = [k]
        for factors, fraction in zip(STAGES, PLACES, strict=True):
            terms = [float(f) * s for f, s in zip(factors, stages, strict=False) if f]
            candidate = u + aligned(step, x) * sum(terms[1:], terms[0])
            stages.append(slope(candidate, place + float(fraction) * step))
        terms = [float(f) * s for f, s in zip(ERROR, stages, strict=True) if f]
        error = aligned(step, x) * sum(terms[1:], terms[0])
        scale = 1.0 + ops.maximum(ops.abs(u), ops.abs(candidate))
        size = ops.sqrt(ops.mean(ops.square(error / scale), axis=axes)) / tolerance
        open_ = place > last
        fine = ops.logical_and(size <= 1.0, open_)
        keep = aligned(ops.cast(fine, "float32"), x) > 0
        u, k = ops.where(keep, candidate, u), ops.where(keep, stages[-1], k)
        place = ops.where(fine, ops.where(near, last, place + step), place)
        factor = ops.clip(0.9 * ops.maximum(size, 1e-8) ** -0.2, 0.2, 5.0)
        step = ops.where(open_, step * factor, step)
        return u, k, place, step, taken + 1, first_bad(finite(size), taken, bad)

    def unfinished(u, k, place, step, taken, bad):
        return ops.logical_and(ops.logical_and(ops.any(place > last), bad < 0), taken < LIMIT)

    ones = ops.ones(ops.shape(x)[:1], dtype="float32")
    u = x / float(alpha[0])
    place, step = ones * float(logs[0]), ones * float(logs[1] - logs[0])
    k, zero = slope(u, place), ops.convert_to_tensor(np.int32(0))
    bad = first_bad(finite(k), zero, none_bad())
    state = (u, k, place, step, zero, bad)
    if is_traced():
        state = ops.while_loop(unfinished, lambda *state: body(state), state)
    else:
        while bool(unfinished(*state)):
            state = body(state)
    u, _, place, _, taken, bad = state
    if not is_traced() and int(bad) < 0 and bool(ops.any(place > last)):
        raise ValueError(
            f'"rk45" is not at the end after {LIMIT} rounds. Expected a larger tolerance or a '
            f"smoother denoiser. Received: tolerance={tolerance}"
        )
    u = ops.where(aligned(place, x) > last, float("nan"), u)  # in a graph: given up
    return SampleResult(u * float(alpha[-1]), None, 1 + 6 * taken), bad
