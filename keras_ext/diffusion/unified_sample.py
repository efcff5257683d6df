"""Samples of any process: a guess of the data, a step back, and again."""

import numpy as np
from keras import ops

from keras_ext.diffusion import forward_processes
from keras_ext.diffusion.forward_processes import tokens
from keras_ext.diffusion.forward_processes.forward_process import mixing_shares, stream
from keras_ext.diffusion.linear_steps import call, over_rows
from keras_ext.diffusion.noise import seed_pair
from keras_ext.diffusion.sample_result import SampleResult, finite, first_bad, sampler
from keras_ext.diffusion.schedule import Schedule


@sampler
def unified_sample(
    restorer,
    forward,
    start,
    steps,
    rule=None,
    rho=None,
    seed=None,
    conditions=None,
    return_trajectory=False,
):
    """Undoes a process step by step.

        x0 = restorer(x_t, t), of tokens drawn from its softmax;  x_q = forward.step(x0, x_t, t, q)

    Args:
        restorer: function `(x, t, **conditions)` that gives (b, ...), the expected data; of tokens
            (b, ..., vocabulary_size), logits, -infinity for what is impossible. t is (b,) float32.
            Eagerly also one that computes in NumPy.
        forward: a `ForwardProcess` or its name.
        start: (b, ...), x at the first time: `forward.prior(shape)`, or degraded data.
        steps: int, number of steps and of calls of the restorer, from time 1 to 0 in equal hops; or
            a list of the steps + 1 times, which decrease.
        rule: str, how a step is made: see `ForwardProcess`. None: the default of the process.
        rho: float in [0, 1], or one for each step: the share of fresh noise of "mix". None: the
            process's own.
        seed: int, (2,) integers, or None for a random one. The random numbers of a sample at a step
            are a function of seed, step and the sample's place in the batch alone.
        conditions: dict of further arguments of the restorer, or None.
        return_trajectory: bool, whether to keep the state at all knots.

    Returns:
        `SampleResult`: `x` like `start`, `trajectory` (steps + 1, b, ...) or None, `calls`.

    Raises:
        ValueError: for a bad start, steps, rule or rho, and a restorer that gives NaN; the error
            names the step.

    Example:

    >>> from keras_ext.diffusion import forward_processes, unified_sample
    >>> blur = forward_processes.get("gaussian_blur")
    >>> x0 = np.float32([[0, 0, 1, 0], [1, 1, 0, 0]])
    >>> blurred, _ = blur.sample(x0, 1.0)
    >>> result = unified_sample(lambda x, t: 0.9 * x0, blur, blurred, steps=10)
    >>> bool(np.abs(np.asarray(result.x) - x0).max() < 0.1), result.calls
    (True, 10)

    Source: https://kexue.fm/archives/9262; Cold Diffusion: Inverting Arbitrary Image Transforms
        Without Noise, Arpit Bansal et al., 2022, https://arxiv.org/abs/2208.09392
    """
    forward = forward_processes.get(forward)
    rule, x = forward.checked_rule(rule), forward.checked(start, "start")
    forward.check_start(x, rule)
    times = step_times(steps)
    table, width = _table(forward, times, rule, rho), len(forward.levels(times))
    seed = seed_pair(seed)

    def body(i, tensors, bad, row):
        (x,) = tensors
        x0, fine = _restored(restorer, forward, x, row[0], seed, i, conditions)
        before, after = (tuple(row[3 + k * width + j] for j in range(width)) for k in range(2))
        return (forward.hop(x0, x, before, after, rule, (row[1], row[2]), seed, i),), first_bad(
            fine, i, bad
        )

    count = len(table)
    x, trajectory, bad = over_rows(body, (x,), table, np.arange(count), return_trajectory)
    return SampleResult(x, trajectory, count), bad


def step_times(steps, of_model=None):
    """The times at which a sampler stands.

    Args:
        steps: int, or a list of times, which decrease.
        of_model: int, the steps of a process in discrete time: the times are the nearest of
            i / of_model. None: continuous time.

    Returns:
        (steps + 1,) float64.

    Raises:
        ValueError: for no steps, more than `of_model`, and times that do not decrease.

    Example:

    >>> step_times(4, of_model=10).tolist()
    [1.0, 0.8, 0.5, 0.2, 0.0]
    """
    grid = Schedule()
    grid.steps = of_model
    times = grid.grid(len(steps) - 1, steps) if np.ndim(steps) > 0 else grid.grid(steps)
    if of_model is None:
        return times
    return grid.grid(len(times) - 1, np.round(times * of_model) / of_model)


def _table(forward, times, rule, rho):
    """A row a step: its time, the shares of mixed noise, the levels before and after it."""
    before, after = times[:-1], times[1:]
    if rho is None:
        rho = forward.rho(before, after)
    elif rule != "mix":
        raise ValueError(
            'rho has an effect only with rule="mix". Expected that, or no rho. '
            f"Received: rule={rule!r}, rho={rho}"
        )
    rho = np.asarray(rho, "float64")
    if rho.shape not in ((), before.shape) or not np.all((rho >= 0) & (rho <= 1)):
        raise ValueError(
            f"Expected rho in [0, 1], one or {len(before)}, one a step. Received: rho={rho}"
        )
    columns = [before, *mixing_shares(rho), *forward.levels(before), *forward.levels(after)]
    return np.stack(np.broadcast_arrays(*columns), axis=-1).astype("float32")


def _restored(restorer, forward, x, t, seed, i, conditions):
    """A guess of the data, and whether what the restorer gave is finite."""
    if forward.vocabulary_size is None:
        x0 = call(restorer, x, t, conditions)
        return x0, finite(x0)
    t = ops.broadcast_to(ops.cast(t, "float32"), ops.shape(x)[:1])
    logits = ops.convert_to_tensor(restorer(x, t, **(conditions or {})))
    logits = checked_logits(logits, x, forward.vocabulary_size)
    possible = finite(ops.max(logits, axis=-1))
    fine = ops.logical_and(possible, ops.logical_not(ops.any(ops.isnan(logits))))
    return tokens.draw_tokens(logits, forward.mask_id, stream(seed, 4), i), fine


def checked_logits(logits, x, vocabulary_size):
    """Logits in float32, one for each token id.

    Args:
        logits: tensor.
        x: (b, ...) int32.
        vocabulary_size: int.

    Returns:
        (b, ..., vocabulary_size) float32.

    Raises:
        ValueError: for another shape.

    Example:

    >>> tuple(checked_logits(np.zeros((2, 3, 5)), np.zeros((2, 3), "int32"), 5).shape)
    (2, 3, 5)
    """
    expected, given = (*x.shape, vocabulary_size), tuple(logits.shape)
    fits = len(expected) == len(given) and all(
        a == b or None in (a, b) for a, b in zip(expected, given, strict=True)
    )
    if not fits:
        raise ValueError(
            f"Expected logits of each token id, shape {expected}. Received: shape={given}"
        )
    return ops.reshape(ops.cast(logits, "float32"), (*ops.shape(x), vocabulary_size))
