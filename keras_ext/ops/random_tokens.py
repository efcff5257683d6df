"""Exactly so many random tokens of each sequence."""

from fractions import Fraction

from keras import ops

from keras_ext.ops.settings import number

DENOMINATOR = 10_000


def fraction(name, rate, least=False):
    """A rate as two integers, so that shares of lengths are exact: 0.7 of 10 are 7, not 7.0000001.

    Args:
        name: str, what errors call it.
        rate: float in [0, 1); with `least` in (0, 1].
        least: bool, whether it is a share that must not be empty.

    Returns:
        Numerator and denominator of the nearest fraction with a denominator up to 10000.

    Raises:
        ValueError: for a rate outside of its range.

    Example:

    >>> fraction("rate", 0.15)
    (3, 20)
    """
    nearest = Fraction(number(name, rate)).limit_denominator(DENOMINATOR)
    low, high = (nearest > 0, nearest <= 1) if least else (nearest >= 0, nearest < 1)
    if not (low and high):
        span = "(0, 1]" if least else "[0, 1)"
        raise ValueError(f"Expected {name} in {span}. Received: {name}={rate}")
    return nearest.numerator, nearest.denominator


def choose_tokens(noise, candidates, counts):
    """The candidates with the lowest noise, so many in each row.

    Uniform among all sets of that size if the noise is, and nothing but `candidates` in any case.

    Args:
        noise: (b, n) float32, from 0 to 1.
        candidates: (b, n) bool.
        counts: (b, 1) int, at most the candidates of the row.

    Returns:
        (b, n) bool.

    Example:

    >>> import numpy as np
    >>> noise = np.array([[0.3, 0.1, 0.2]], "float32")
    >>> np.array(choose_tokens(noise, np.array([[True, False, True]]), np.array([[1]]))).tolist()
    [[False, False, True]]
    """
    order = ops.argsort(ops.where(candidates, noise, 2.0), axis=-1)
    rank = ops.argsort(order, axis=-1)
    return ops.logical_and(rank < counts, candidates)


def count_true(mask):
    """How many places of each row are true, (b, 1) int32."""
    return ops.sum(ops.cast(mask, "int32"), axis=-1, keepdims=True)
