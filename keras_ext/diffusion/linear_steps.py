"""The one loop of all samplers with fixed steps, whose coefficients are a table."""

from dataclasses import dataclass

import numpy as np
from keras import ops

from keras_ext.diffusion.checks import is_traced
from keras_ext.diffusion.noise import standard_normal
from keras_ext.diffusion.predictions import to_x0
from keras_ext.diffusion.sample_result import SampleResult


@dataclass
class LinearSteps:
    """A sampler as a table: each row calls the network once.

    The state is m tensors s_1 ... s_m; s_1 is the noisy data that the network sees. A row computes
    x0 from the prediction, and then, with z standard normal,

        s_i <- sum_j mix_ij s_j + mix_i0 x0 + noise_i z

    All samplers in this room with fixed steps are of this form: their states are amplitudes of data
    and noise times things that are linear in x0.

    Args:
        times: (n,) float64, the time of each row.
        mix: (n, m, m + 1) float64, the columns for s_1 ... s_m and, last, for x0.
        noise: (n, m) float64.
        step: (n,) int, the step to which a row belongs.
    """

    times: np.ndarray
    mix: np.ndarray
    noise: np.ndarray
    step: np.ndarray

    @classmethod
    def of_hops(cls, times, hops):
        """Of one tensor and one row a step: `hops` are (n, 3), the factors of x, x0 and z."""
        hops = np.stack(np.broadcast_arrays(*hops), axis=-1)
        return cls(times, hops[:, None, :2], hops[:, 2:], np.arange(len(times)))


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
        seed: (2,) uint32, see `seed_pair`; needed only where there is noise.
        clip_x0: pair of floats between which x0 is held, or None.
        conditions: dict of further arguments of the denoiser, or None.
        return_trajectory: bool.
        corrector: `Langevin`, or None.

    Returns:
        `SampleResult`, and int scalar, the first step with a NaN, or -1.
    """
    count, width = steps.noise.shape
    p, q = to_x0(schedule, prediction, steps.times)
    head = np.stack([steps.times, p, q], axis=-1)
    tail = corrector.table(schedule, steps.times) if corrector else np.zeros((count, 0))
    parts = [head, steps.mix.reshape(count, -1), steps.noise, tail]
    table = np.concatenate(parts, axis=-1).astype("float32")
    used, noisy = (steps.mix != 0).any(0), (steps.noise != 0).any(0)
    draws = 1 + (corrector.steps if corrector else 0)

    def x0_at(x, row):
        value = call(denoiser, x, row[0], conditions)
        return clipped(row[1] * x + row[2] * value, clip_x0), ops.all(ops.isfinite(value))

    def body(i, state, row):
        tensors, bad, states = state
        fine = []
        for k in range(draws - 1):
            x0, good = x0_at(tensors[0], row)
            z = standard_normal(seed, i * draws + k + 1, ops.shape(x))
            moved = corrector.moved(tensors[0], x0, z, row[-tail.shape[-1] :])
            tensors, fine = (moved, *tensors[1:]), [*fine, good]
        x0, good = x0_at(tensors[0], row)
        z = standard_normal(seed, i * draws, ops.shape(x)) if noisy.any() else None
        new = []
        for j in range(width):
            first = 3 + j * (width + 1)
            terms = [row[first + k] * s for k, s in enumerate((*tensors, x0)) if used[j, k]]
            if noisy[j]:
                terms.append(row[3 + width * (width + 1) + j] * z)
            new.append(sum(terms[1:], terms[0]))
        for good in (*fine, good):
            bad = ops.where(ops.logical_or(good, bad >= 0), bad, ops.cast(i, "int32"))
        return tuple(new), bad, states.written(steps.step, i, new[0])

    state = ((x,) * width, ops.convert_to_tensor(np.int32(-1)), Trajectory(return_trajectory, x, steps.step[-1] + 1))
    return None
