import numpy as np

from keras_ext.metrics.distance_blocks import mean_over_pairs
from keras_ext.metrics.sample_sets import two_sets


def mmd(x, y, bandwidth=None):
    """Squared maximum mean discrepancy with a Gaussian kernel, the unbiased estimate.

        MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)
        k(a, b) = exp(-|a - b|^2 / (2 bandwidth^2))

    It sees differences of about the size of the bandwidth. Memory does not grow with n m.

    Floor: for two sets of the same distribution its mean is 0 at every size, so that it is negative
    more often than not; its standard deviation falls with 1 / n, and `two_sample_floor` says it.
    Values of different bandwidths are no comparison: give a number where several sets are compared.

    Args:
        x: (n, ...) samples, n >= 2, numbers of any dtype; each is flattened.
        y: (m, ...) samples of the same shape, m >= 2.
        bandwidth: A distance. By default the median distance of two samples of both sets together
            (of 1000 of them, where there are more).

    Returns:
        A float in [-2, 2], without a unit. No root is taken: it may be negative.

    Raises:
        ValueError: If the sets cannot be compared (samples of different shapes, less than 2, not
            finite), the bandwidth is not a positive finite number, or none is given and most
            samples are equal.

    Example:

    >>> round(mmd([0.0, 1.0, 2.0], [10.0, 11.0, 12.0], bandwidth=1.0), 4)
    0.8989

    Source: Arthur Gretton et al., A Kernel Two-Sample Test, 2012,
    https://jmlr.org/papers/v13/gretton12a.html
    """
    x, y = two_sets(x, y, least=2)
    if bandwidth is None:
        bandwidth = _median_distance(x, y)
        if not bandwidth:
            raise ValueError(
                "The median distance of two samples is 0: expected a bandwidth. "
                "Received: bandwidth=None"
            )
    if not 0 < bandwidth < np.inf:
        raise ValueError(f"A bandwidth is a positive finite number. Received: {bandwidth=}")

    def kernel(squared):
        squared *= -0.5 / bandwidth**2
        return np.exp(squared, out=squared)

    def within(points):
        n = len(points)
        return (n * mean_over_pairs(kernel, points, points) - 1) / (n - 1)  # k(a, a) = 1

    return within(x) + within(y) - 2 * mean_over_pairs(kernel, x, y)


def _median_distance(x, y, most=1000):
    from scipy.spatial.distance import pdist  # here: it takes longer than `import keras_ext`

    chosen = np.arange(len(x) + len(y))
    if len(chosen) > most:
        chosen = np.random.default_rng(0).choice(chosen, most, replace=False)
    in_x = chosen < len(x)
    return float(np.median(pdist(np.concatenate([x[chosen[in_x]], y[chosen[~in_x] - len(x)]]))))
