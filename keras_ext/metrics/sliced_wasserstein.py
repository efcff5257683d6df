import numpy as np

from keras_ext.metrics.sample_sets import two_sets

# Numbers of projected samples at a time: 32 MiB.
PROJECTED = 2**22


def sliced_wasserstein(x, y, directions=100, order=2, seed=0):
    """Sliced Wasserstein distance: what it costs to move one set onto the other, seen from many sides.

        SW_p^p = mean over directions a of  int_0^1 |F_a^-1(q) - G_a^-1(q)|^p dq

    F_a^-1 and G_a^-1 are the quantiles of the samples' products with the unit vector a. They are
    steps, so the integral is an exact sum, for sets of different sizes, too. A shift of all samples
    by s counts about |s| / sqrt(d). In one dimension it is the Wasserstein distance itself.

    Floor: two sets of the same distribution are not at 0, but at a distance that falls with n^-1/2
    (slower where the density has gaps); `two_sample_floor` says it. Directions add noise of their
    own, so compare with the same number and seed.

    Args:
        x: (n, ...) samples, numbers of any dtype; each is flattened to d numbers.
        y: (m, ...) samples of the same shape.
        directions: How many unit vectors: rows of `np.random.default_rng(seed).normal(size=
            (directions, d))`, divided by their norms. Defaults to 100.
        order: p >= 1, the power of a distance; the higher, the more outliers count. Defaults to 2.
        seed: Of the directions. Defaults to 0.

    Returns:
        A float >= 0, in the unit of the samples.

    Raises:
        ValueError: If the sets cannot be compared (samples of different shapes, none, not finite),
            there is no direction, or the order is less than 1 or infinite.

    Example:

    >>> round(sliced_wasserstein([0.0, 1.0, 2.0], [3.0, 4.0, 5.0]), 6)
    3.0
    >>> round(sliced_wasserstein([0.0, 1.0], [0.0, 0.0, 1.0], order=1), 6)  # a sixth moves by 1
    0.166667

    Source: Nicolas Bonneel et al., Sliced and Radon Wasserstein Barycenters of Measures, 2015,
    https://doi.org/10.1007/s10851-014-0506-3
    """
    x, y = two_sets(x, y)
    if directions < 1:
        raise ValueError(f"At least one direction is needed. Received: {directions=}")
    if not 1 <= order < np.inf:
        raise ValueError(f"The order is a finite number >= 1. Received: {order=}")
    axes = np.random.default_rng(seed).normal(size=(directions, x.shape[1]))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    i, j, weights = _steps(len(x), len(y))
    count = max(1, PROJECTED // len(weights))
    total = 0.0
    for some in np.split(axes, range(count, directions, count)):
        u, v = (np.sort(some @ points.T, axis=1) for points in (x, y))  # (directions, n)
        total += float((np.abs(u[:, i] - v[:, j]) ** order @ weights).sum())
    return (total / directions) ** (1 / order)


def _steps(n, m):
    """Where both quantile functions are constant: the sample of each, and the length of the step.

    In units of 1 / (n m) all ends of steps are integers.
    """
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    starts = np.concatenate([[0], ends[:-1]])
    return starts // m, starts // n, (ends - starts) / (n * m)
