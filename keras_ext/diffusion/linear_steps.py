"""The one loop of all samplers with fixed steps, whose coefficients are a table."""

from dataclasses import dataclass

import numpy as np
from keras import ops

from keras_ext.diffusion.checks import is_traced
from keras_ext.diffusion.noise import seed_pair, standard_normal
from keras_ext.diffusion.predictions import to_x0
from keras_ext.diffusion.sample_result import SampleResult, finite, first_bad, none_bad


@dataclass
class LinearSteps:
    """A sampler as a table: each row calls the network once.

    The state is m tensors s_1 ... s_m; s_1 is the noisy data that the network sees. A row computes
    x0 from the prediction, and then, with z standard normal,

        s_i <- sum_j mix_ij s_j + mix_i0 x0 + noise_i z

    All samplers in this room with fixed steps are of this form: their states are amplitudes of data
    and noise times things that are linear in x0. Where the variance of x0 is known element by
    element, cov, the noise of s_1 has the factor (noise_1^2 + spread^2 cov)^(1/2).

    Args:
        times: (n,) float64, the time of each row.
        mix: (n, m, m + 1) float64, the columns for s_1 ... s_m and, last, for x0.
        noise: (n, m) float64.
        step: (n,) int, the step to which a row belongs.
        spread: (n,) float64, the factor of x0 in what cov is added to; None: 0.
    """

    times: np.ndarray
    mix: np.ndarray
    noise: np.ndarray
    step: np.ndarray
    spread: np.ndarray | None = None

    @classmethod
    def of_hops(cls, times, hops, spread=None):
        """Of one tensor and one row a step: `hops` are (n, 3), the factors of x, x0 and z."""
        hops = np.stack(np.broadcast_arrays(*hops), axis=-1)
        return cls(times, hops[:, None, :2], hops[:, 2:], np.arange(len(times)), spread)


def run(
    steps,
    denoiser,
    schedule,
    x,
    prediction,
    *,
    seed=None,
    clip_x0=None,
    conditions=None,
    return_trajectory=False,
    corrector=None,
    covariance=None,
):
    """Carries out the steps.

    Eagerly, as a loop in Python, which takes denoisers that no graph can hold; within a graph as
    one loop of the graph. The state is float32, whatever the network gives.

    Args:
        steps: `LinearSteps`.
        denoiser: function `(x, t, **conditions)`, x (b, ...), t (b,) float32.
        schedule: a `Schedule`.
        x: (b, ...) float32, the state to begin with.
        prediction: str, what the denoiser predicts.
        seed: int, (2,) integers, or None for a random one; not looked at where there is no noise.
        clip_x0: pair of floats between which x0 is held, or None.
        conditions: dict of further arguments of the denoiser, or None.
        return_trajectory: bool.
        corrector: `Langevin`, or None.
        covariance: function `(x, t, x0, **conditions) -> (b, ...)`, the variance of each element of
            the data given x, or None. A call of it counts as one of a network.

    Returns:
        `SampleResult`, and int scalar, the first step with a NaN, or -1.
    """
    count, width = steps.noise.shape
    p, q = to_x0(schedule, prediction, steps.times)
    tail = corrector.table(schedule, steps.times) if corrector else np.zeros((count, 0))
    spread = np.zeros(count) if covariance is None else steps.spread
    mixes = steps.mix.reshape(count, -1).T
    factors = [steps.times, p, q, *mixes, *steps.noise.T, spread, *tail.T]
    table = np.stack(factors, axis=-1).astype("float32")
    used, noisy = (steps.mix != 0).any(0), (steps.noise != 0).any(0)
    noisy[0] = noisy[0] or spread.any()
    repeats = corrector.steps if corrector else 0
    if noisy.any() or repeats:
        seed = seed_pair(seed)

    def body(i, tensors, bad, row):
        def x0_at(x, bad):
            value = call(denoiser, x, row[0], conditions)
            x0 = clipped(row[1] * x + row[2] * value, clip_x0)
            return x0, first_bad(finite(value), i, bad)

        x, *others = tensors
        draw = i * (1 + repeats)
        if repeats:

            def correct(k, state):
                x0, bad = x0_at(*state)
                z = standard_normal(seed, draw + k + 1, ops.shape(x))
                return corrector.moved(state[0], x0, z, row[len(factors) - 3 :]), bad

            x, bad = repeated(repeats, correct, (x, bad))
        x0, bad = x0_at(x, bad)
        z = standard_normal(seed, draw, ops.shape(x)) if noisy.any() else None
        scales = [row[3 + width * (width + 1) + j] for j in range(width)]
        if covariance is not None:
            given = {**(conditions or {}), "x0": x0}
            cov = call(covariance, x, row[0], given)
            bad = first_bad(finite(cov), i, bad)
            factor = row[3 + width * (width + 2)]
            scales[0] = ops.sqrt(ops.maximum(scales[0] ** 2 + factor**2 * cov, 0.0))
        new = []
        for j in range(width):
            mix = row[3 + j * (width + 1) :]
            terms = [mix[k] * s for k, s in enumerate((x, *others, x0)) if used[j, k]]
            terms += [scales[j] * z] if noisy[j] else []
            new.append(sum(terms[1:], terms[0]))
        return tuple(new), bad

    x, trajectory, bad = over_rows(body, (x,) * width, table, steps.step, return_trajectory)
    calls = count * (1 + repeats + (covariance is not None))
    return SampleResult(x, trajectory, calls), (_step(steps.step, bad))


def over_rows(body, tensors, table, step, return_trajectory=False):
    """The loop of a sampler, of Python or of the graph.

    Args:
        body: function `(i, tensors, bad, row)` that gives the tensors after row i, and `bad`, which
            it sets to i for a NaN if it is below 0.
        tensors: tuple of tensors, the first of which is the state.
        table: (n, k) float32 NumPy array, the rows: a list of floats or a tensor (k,) for `body`.
        step: (n,) int, the step to which a row belongs.
        return_trajectory: bool.

    Returns:
        The state; its trajectory (steps + 1, ...) or None; int scalar, the first bad row, or -1.

    Example:

    >>> halve = lambda i, tensors, bad, row: ((row[0] * tensors[0],), bad)
    >>> rows = np.full((3, 1), 0.5, "float32")
    >>> x, trajectory, bad = over_rows(halve, (ops.ones((1, 1)),), rows, np.arange(3))
    >>> float(x[0, 0]), int(bad)
    (0.125, -1)
    """
    bad = none_bad()
    loop = _in_graph if is_traced() else _in_python
    return loop(body, tensors, bad, table, step, return_trajectory)


def _step(step, row):
    """The step of a row, -1 for none."""
    return ops.take(
        ops.convert_to_tensor(np.append(step, -1).astype("int32")), row % (len(step) + 1)
    )


def repeated(count, body, state, first=0):
    """`state = body(i, state)` some times: in a graph a loop of the graph.

    Args:
        count: int.
        body: function `(i, state)` that gives the next state, a structure of tensors.
        state: the first one.
        first: int, what i begins with; it ends below `count`.

    Returns:
        The last state.

    Example:

    >>> repeated(3, lambda i, x: 2 * x, 1)
    8
    """
    if is_traced():
        return ops.fori_loop(first, count, body, state)
    for i in range(first, count):
        state = body(i, state)
    return state


def _in_python(body, tensors, bad, table, step, return_trajectory):
    states = [tensors[0]]
    for i, row in enumerate(table.tolist()):
        tensors, bad = body(i, tensors, bad, row)
        if int(bad) >= 0:
            break
        if return_trajectory and (i + 1 == len(step) or step[i + 1] != step[i]):
            states.append(tensors[0])
    return tensors[0], ops.stack(states) if return_trajectory else None, bad


def _in_graph(body, tensors, bad, table, step, return_trajectory):
    table, places = ops.convert_to_tensor(table), ops.convert_to_tensor(step.astype("int32") + 1)
    states = (ops.repeat(tensors[0][None], int(step[-1]) + 2, axis=0),) if return_trajectory else ()

    def write(i, state):
        tensors, bad, states = state
        tensors, bad = body(i, tensors, bad, ops.take(table, i, axis=0))
        # A row that does not end a step writes what the row that does overwrites.
        place = ops.reshape(ops.take(places, i), (1, 1))
        states = tuple(ops.scatter_update(each, place, tensors[0][None]) for each in states)
        return tensors, bad, states

    tensors, bad, states = ops.fori_loop(0, len(step), write, (tensors, bad, states))
    return tensors[0], states[0] if return_trajectory else None, bad


def call(denoiser, x, t, conditions=None):
    """What a denoiser predicts, in float32 and of the shape of its input.

    Args:
        denoiser: function `(x, t, **conditions)`.
        x: (b, ...) float32.
        t: float or float32 scalar, the time of all samples, or (b,).
        conditions: dict of further arguments, or None.

    Returns:
        (b, ...) float32.

    Raises:
        ValueError: if it gives another shape.

    Example:

    >>> tuple(call(lambda x, t: x * t[:, None], np.ones((2, 3), "float32"), 0.5).shape)
    (2, 3)
    """
    t = ops.broadcast_to(ops.cast(t, "float32"), ops.shape(x)[:1])
    value = ops.cast(ops.convert_to_tensor(denoiser(x, t, **(conditions or {}))), "float32")
    expected, given = x.shape, value.shape
    fits = len(expected) == len(given) and all(
        a == b or None in (a, b) for a, b in zip(expected, given, strict=True)
    )
    if not fits:
        raise ValueError(
            f"Expected a denoiser whose output has the shape of its input, {tuple(expected)}. "
            f"Received: shape={tuple(given)}"
        )
    return ops.reshape(value, ops.shape(x))


def clipped(x0, bounds):
    """The data, held between two bounds, or as they are for None."""
    return x0 if bounds is None else ops.clip(x0, *bounds)
