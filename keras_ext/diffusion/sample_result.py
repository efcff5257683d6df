"""What a sampler gives, and how a sampler ends that met a NaN."""

import functools
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_ext.diffusion.checks import is_traced


class SampleResult(NamedTuple):
    """What every sampler gives.

    Attributes:
        x: (b, ...) float32, the samples; int32 if they are tokens.
        trajectory: (knots, b, ...) like x, the states from the first to the samples, or None where
            it was not asked for.
        calls: int, how often the network was called; a tensor in a graph.

    Example:

    >>> SampleResult(np.zeros((1, 2)), None, 10).calls
    10
    """

    x: object
    trajectory: object
    calls: object


def sampler(function):
    """Makes a public sampler of one that also gives the step at which a NaN came up, or -1.

    Called eagerly, the public one raises an error that names the step. In a graph it cannot; there
    the samples are NaN. What compiles a sampler can call `__wrapped__`, and raise afterwards, by
    `finished`.

    Args:
        function: a function that gives a `SampleResult` and a step.

    Returns:
        A function that gives a `SampleResult`.
    """

    @functools.wraps(function)
    def public(*args, **arguments):
        return finished(*function(*args, **arguments))

    return public


def none_bad():
    """The step with a NaN while there is none: -1, an int scalar."""
    return ops.convert_to_tensor(np.int32(-1))


def finite(*values):
    """Whether all numbers of some tensors are finite, a bool scalar."""
    return functools.reduce(ops.logical_and, [ops.all(ops.isfinite(each)) for each in values])


def first_bad(fine, i, bad):
    """The first step that was not fine.

    Args:
        fine: bool scalar, whether step i was.
        i: int or int scalar.
        bad: int scalar, the first step before i that was not, or -1.

    Returns:
        int32 scalar; -1 for none.

    Example:

    >>> bad = none_bad()
    >>> for i, fine in enumerate([True, False, False]):
    ...     bad = first_bad(fine, i, bad)
    >>> int(bad)
    1
    """
    return ops.where(ops.logical_or(fine, bad >= 0), bad, ops.cast(i, "int32"))


def finished(result, bad_step):
    """The result, unless the denoiser gave a NaN.

    Args:
        result: `SampleResult`.
        bad_step: int or int scalar, the step at which it began, from 0, or -1.

    Returns:
        The result; in a graph its samples are NaN, or tokens -1, if there is such a step.

    Raises:
        ValueError: if there is such a step and its value can be read.
    """
    if is_traced():
        # Also where the bounds of x0 have hidden it.
        x = result.x
        nothing = -1 if keras.backend.standardize_dtype(x.dtype) == "int32" else float("nan")
        return result._replace(x=ops.where(bad_step >= 0, ops.cast(nothing, x.dtype), x))
    if int(bad_step) >= 0:
        raise ValueError(
            f"The denoiser returned NaN or infinity, first at step {int(bad_step)} (from 0). "
            "Expected finite values."
        )
    return result
