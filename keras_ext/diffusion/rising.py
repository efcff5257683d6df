"""The rising sequence that is nearest to a given one."""

import numpy as np


def rising(values, weights):
    """Isotonic regression: the y with y_0 <= y_1 <= ... that minimises sum_i w_i (y_i - values_i)^2.

    Neighbours out of order are replaced by their weighted mean, until none are.

    Args:
        values: (n,) floats.
        weights: (n,) floats of at least 0, not all of neighbours 0.

    Returns:
        (n,) float64.

    Example:

    >>> rising([1.0, 3.0, 2.0, 4.0], [1.0, 1.0, 3.0, 1.0])
    array([1.  , 2.25, 2.25, 4.  ])

    Source: An Empirical Distribution Function for Sampling with Incomplete Information, Miriam Ayer
        et al., 1955, https://doi.org/10.1214/aoms/1177728423
    """
    blocks = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        mean, weight, length = float(value), float(weight), 1
        while blocks and blocks[-1][0] >= mean:
            other, more, longer = blocks.pop()
            mean = (weight * mean + more * other) / (weight + more)
            weight, length = weight + more, length + longer
        blocks.append((mean, weight, length))
    return np.concatenate([np.full(length, mean) for mean, _, length in blocks])
