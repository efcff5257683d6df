import numpy as np

from keras_ext.metrics.distance_blocks import mean_over_pairs
from keras_ext.metrics.sample_sets import two_sets


def energy_distance(x, y):
    """Energy distance: how much farther the two sets are from each other than from themselves.

        D = 2 mean |x_i - y_j| - mean |x_i - x_j| - mean |y_i - y_j|

    All means are over all pairs, those of a sample with itself included. So D is the distance of
    the two empirical distributions: never negative, and 0 for equal sets only. It has no parameter.
    Memory does not grow with n m. In one dimension it is the square of
    `scipy.stats.energy_distance`.

    Floor: two sets of the same distribution are at (1 / n + 1 / m) E|x - x'| in the mean, not at 0;
    `two_sample_floor` says how far the values spread.

    Args:
        x: (n, ...) samples, numbers of any dtype; each is flattened.
        y: (m, ...) samples of the same shape.

    Returns:
        A float, in the unit of the samples: no root is taken. Rounding may make a zero negative by
        some 1e-16 of a distance.

    Raises:
        ValueError: If the sets cannot be compared: samples of different shapes, none, not finite.

    Example:

    >>> energy_distance([0.0, 1.0], [3.0, 4.0])  # 2 * 3 - 0.5 - 0.5
    5.0

    Source: Gabor Szekely and Maria Rizzo, Energy statistics: A class of statistics based on
    distances, 2013, https://doi.org/10.1016/j.jspi.2013.03.018
    """
    x, y = two_sets(x, y)

    def distance(squared):
        return np.sqrt(squared, out=squared)

    across = mean_over_pairs(distance, x, y)
    return 2 * across - mean_over_pairs(distance, x, x) - mean_over_pairs(distance, y, y)
