"""How far a flow is from going straight."""

import numpy as np
from keras import ops

from keras_ext.diffusion.checks import checked_noise
from keras_ext.diffusion.linear_steps import call, repeated
from keras_ext.diffusion.sample_result import SampleResult, finite, first_bad, none_bad, sampler
from keras_ext.ops.settings import whole


def straightness(velocity, noise_or_pairs, steps=100, conditions=None):
    """How far a flow is from straight lines: 0 if one Euler step does what many do.

        S = E int_0^1 |(x1 - x0) - velocity(x_t, t)|^2 dt

    Of noise x1, x_t are the flow's own curves, in Euler steps, and x0 is where they end. Of pairs, x_t
    is the line (1 - t) x0 + t x1 between them: of pairs that another flow has made, how well this one
    has learnt to go straight from one to the other; of independent data and noise the loss of
    training, most of which is that lines cross.

    Args:
        velocity: function `(x, t, **conditions) -> (b, ...)`, t = 1 noise.
        noise_or_pairs: (n, ...) floats, x1; or a pair of x0 and x1, (n, ...) floats each.
        steps: int, number of steps, or of times, in the middles of equal parts of [0, 1].
        conditions: dict of further arguments of the velocity, or None.

    Returns:
        float, the mean over samples of the squared norm.

    Raises:
        ValueError: for bad noise, pairs of different lengths or shapes, and a velocity that gives
            NaN.

    Example:

    >>> x1 = np.ones((4, 2), "float32")
    >>> straightness(lambda x, t: 1.0 + 0.0 * x, (x1 - 1.0, x1), steps=5)
    0.0

    Source: Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow,
        Xingchao Liu, Chengyue Gong, Qiang Liu, 2022, https://arxiv.org/abs/2209.03003
    """
    function, x = bends_of(noise_or_pairs)
    return float(ops.mean(function(velocity, x, steps, conditions=conditions).x))


def bends_of(noise_or_pairs):
    """What computes the straightness of each sample, in the form of a sampler, and its input."""
    if not isinstance(noise_or_pairs, tuple | list):
        return bends_of_curves, noise_or_pairs
    x0, x1 = (np.asarray(ops.convert_to_numpy(each), "float32") for each in noise_or_pairs)
    check_pairs(x0, x1)
    return bends_of_lines, np.stack([x0, x1], axis=1)


@sampler
def bends_of_lines(velocity, noise, steps, conditions=None):
    """`straightness` of pairs, (b, 2, ...): `x` of the result are those of each, (b,)."""
    pairs, steps = checked_noise(noise, "pairs"), whole("steps", steps)
    x0, chord = pairs[:, 0], pairs[:, 1] - pairs[:, 0]

    def add(i, state):
        t = (ops.cast(i, "float32") + 0.5) / steps
        each = _squares(chord - call(velocity, x0 + t * chord, t, conditions))
        return state[0] + each / steps, first_bad(finite(each), i, state[1])

    total, bad = repeated(steps, add, (ops.zeros(ops.shape(x0)[:1], "float32"), none_bad()))
    return SampleResult(total, None, steps), bad


@sampler
def bends_of_curves(velocity, noise, steps, conditions=None):
    """`straightness` of the curves from noise (b, ...): `x` of the result are those of each, (b,)."""
    x, steps = checked_noise(noise), whole("steps", steps)

    def add(i, state):
        # Of Euler's curve x1 - x0 is the mean velocity: the variance, by the method that sums squares
        # of differences, not differences of squares.
        x, mean, total, bad = state
        i = ops.cast(i, "float32")
        value = call(velocity, x, 1.0 - i / steps, conditions)
        change = value - mean
        total = total + _squares(change) * i / (i + 1.0)
        return x - value / steps, mean + change / (i + 1.0), total, first_bad(finite(total), i, bad)

    zeros = ops.zeros(ops.shape(x)[:1], "float32")
    state = repeated(steps, add, (x, ops.zeros_like(x), zeros, none_bad()))
    return SampleResult(state[2] / steps, None, steps), state[3]


def check_pairs(x0, x1):
    """Refuses pairs of which one is missing a partner, or of different shapes.

    Args:
        x0: (n, ...) array.
        x1: (n, ...) array.

    Raises:
        ValueError: see above.

    Example:

    >>> check_pairs(np.zeros((3, 2)), np.zeros((3, 2)))
    """
    if tuple(x0.shape) != tuple(x1.shape):
        raise ValueError(
            "Row i of x1 belongs to row i of x0. Expected x0 and x1 of one length and shape. "
            f"Received: x0.shape={tuple(x0.shape)}, x1.shape={tuple(x1.shape)}"
        )


def _squares(x):
    """The squared norm of each sample, (b,)."""
    return ops.sum(ops.square(x), axis=tuple(range(1, len(x.shape))))
