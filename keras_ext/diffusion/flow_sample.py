"""Sampling by following a velocity from noise to data."""

import numpy as np

from keras_ext.diffusion.checks import checked_noise, known
from keras_ext.diffusion.linear_steps import LinearSteps, run
from keras_ext.diffusion.sample_result import sampler
from keras_ext.diffusion.schedules import StraightSchedule
from keras_ext.ops.settings import number, whole

# Explicit methods whose stages each use the one before: places, factors of it, weights.
TABLEAUX = {
    "euler": ((0.0,), (), (1.0,)),
    "heun": ((0.0, 1.0), (1.0,), (0.5, 0.5)),
    "midpoint": ((0.0, 0.5), (0.5,), (0.0, 1.0)),
    "rk4": ((0.0, 0.5, 0.5, 1.0), (0.5, 0.5, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}


@sampler
def flow_sample(
    velocity,
    noise,
    steps,
    solver="euler",
    conditions=None,
    start=1.0,
    end=0.0,
    return_trajectory=False,
):
    """Samples by a solver of dx / dt = velocity(x, t), from noise at t = 1 to data at t = 0.

    All steps are of one length. Network calls a step: 1 for "euler", 2 for "heun" and "midpoint", 4
    for "rk4". With `start` below `end` the curve is followed from the data to the noise.

    To compile it: `compiled(flow_sample, velocity, steps=20)(noise)`.

    Args:
        velocity: function `(x, t, **conditions) -> (b, ...)` of x (b, ...) and t (b,), both float32:
            a model's `velocity()`, a function in closed form, also one that computes in NumPy.
        noise: (b, ...) float, x at time `start`.
        steps: int, number of steps.
        solver: str, "euler", "heun", "midpoint" or "rk4".
        conditions: dict of further arguments of the velocity, or None.
        start: float in [0, 1], the first time.
        end: float in [0, 1], the last time.
        return_trajectory: bool, whether to keep the state after each step.

    Returns:
        `SampleResult`: `x` (b, ...) float32, `trajectory` (steps + 1, b, ...) or None, `calls`.

    Raises:
        ValueError: for bad noise, steps or times, an unknown solver, and a velocity that gives NaN or
            another shape; the error of NaN names the step.

    Example:

    >>> noise = np.array([[1.0, 2.0]])
    >>> result = flow_sample(lambda x, t: 3.0 * x / x, noise, 4)  # 3, whatever x
    >>> np.asarray(result.x).tolist(), result.calls
    ([[-2.0, -1.0]], 4)

    Source: Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow,
        Xingchao Liu, Chengyue Gong, Qiang Liu, 2022, https://arxiv.org/abs/2209.03003
    """
    x = checked_noise(noise)
    known("solver", solver, TABLEAUX)
    start, end = number("start", start), number("end", end)
    if not (0 <= start <= 1 and 0 <= end <= 1) or start == end:
        raise ValueError(
            "Expected two times between 0, data, and 1, noise, that differ. "
            f"Received: start={start}, end={end}"
        )
    rows = flow_rows(np.linspace(start, end, whole("steps", steps) + 1), solver)
    # For "x0" the loop takes what the network gives as it is.
    kept = {"conditions": conditions, "return_trajectory": return_trajectory}
    return run(rows, velocity, StraightSchedule(), x, "x0", **kept)


def flow_rows(times, solver):
    """The table of a solver of dx / dt = value between knots.

    The state is x, x at the beginning of the step, and what the stages have added up so far; of
    "euler" it is x alone.

    Args:
        times: (steps + 1,) float64.
        solver: str, one of `TABLEAUX`.

    Returns:
        `LinearSteps`, whose last column is for the value.

    Example:

    >>> flow_rows(np.array([1.0, 0.5, 0.0]), "euler").mix.tolist()
    [[[1.0, -0.5]], [[1.0, -0.5]]]
    """
    places, factors, weights = TABLEAUX[solver]
    width = 1 if len(places) == 1 else 3
    at, mixes, step = [], [], []
    for i, (t, h) in enumerate(zip(times[:-1], np.diff(times), strict=True)):
        for j, place in enumerate(places):
            value = np.eye(1, width + 1, width)[0]
            base = np.eye(1, width + 1, min(j, 1))[0]  # of the first stage it is x itself
            added = h * weights[j] * value
            if j:
                added[2] = 1.0
            last = j + 1 == len(places)
            out = base + (added if last else h * factors[j] * value)
            at.append(t + place * h)
            mixes.append([out, base, added][:width])
            step.append(i)
    noise = np.zeros((len(at), width))
    return LinearSteps(np.array(at), np.array(mixes), noise, np.array(step))
