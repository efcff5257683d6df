from typing import NamedTuple

import numpy as np


class TwoSampleFloor(NamedTuple):
    """What `two_sample_floor` returns.

    Args:
        mean: Of the metric between two sets of the same data: a float, or, for a metric that
            returns several figures, a tuple of the same kind.
        std: Standard deviation of the metric from one pair of sets to the next, likewise.
        sizes: How many samples the two sets had.
        repeats: How many pairs of sets were drawn.

    Example:

    >>> two_sample_floor(lambda x, y: float(len(x)), [1.0, 2.0, 3.0, 4.0]).sizes
    (2, 2)
    """

    mean: float | tuple
    std: float | tuple
    sizes: tuple
    repeats: int


def two_sample_floor(metric, data, sizes=None, repeats=20, seed=0):
    """What a metric gives for two sets of the same data: differences below it are noise.

    The data are shuffled, and the metric compares the first samples with those that follow, again
    and again. A generator as good as the data would give the same values: one that gives
    `mean + 2 * std` or less (for precision and recall `mean - 2 * std` or more) cannot be told from
    the data by so many samples, and two generators that differ by less than `2 * std` not from each
    other.

    Every metric depends on the numbers of samples, so these must be those of the comparison: to
    compare n real samples with m generated ones, the floor is of `sizes=(n, m)`, which takes n + m
    real samples. With less of them, compare half of the data with as many generated samples. The
    two sets are disjoint; samples that occur in both would make the floor too low.

    Args:
        metric: A function of two sets of samples, with all its options set, that returns a number
            or a tuple of numbers: `sliced_wasserstein`,
            `functools.partial(mmd, bandwidth=2.0)`, a function of your own.
        data: (N, ...) real samples.
        sizes: Tuple (n, m): samples of the first and the second set, n + m <= N. By default N // 2
            of each.
        repeats: How many pairs of sets are drawn, at least 2; the standard deviation is known to
            some 1 / sqrt(2 repeats) of itself. Defaults to 20.
        seed: Of the shuffling. Defaults to 0.

    Returns:
        A `TwoSampleFloor`.

    Raises:
        ValueError: If there are less than n + m samples, a set is empty, or the repeats are less
            than 2. The metric refuses what it cannot compare.

    Example:

    >>> from keras_ext.metrics import sliced_wasserstein
    >>> rng = np.random.default_rng(0)
    >>> real, held_out = rng.normal(size=(2, 500, 2))
    >>> floor = two_sample_floor(sliced_wasserstein, np.concatenate([real, held_out]), (500, 500))
    >>> good, bad = rng.normal(size=(500, 2)), rng.normal(0.5, size=(500, 2))
    >>> sliced_wasserstein(real, good) < floor.mean + 2 * floor.std
    True
    >>> sliced_wasserstein(real, bad) < floor.mean + 2 * floor.std
    False
    """
    data = np.asarray(data)
    total = len(data) if data.ndim else 0
    n, m = (total // 2, total // 2) if sizes is None else sizes
    if min(n, m) < 1 or n + m > total:
        raise ValueError(
            "Two disjoint sets of the sizes (n, m) take n + m samples, and at least one each. "
            f"Received: {sizes=}, data.shape={data.shape}"
        )
    if repeats < 2:
        raise ValueError(f"A standard deviation takes two repeats or more. Received: {repeats=}")
    rng = np.random.default_rng(seed)
    orders = (rng.permutation(total) for _ in range(repeats))
    values = [metric(data[order[:n]], data[order[n : n + m]]) for order in orders]
    figures = np.asarray(values, "float64")  # (repeats,) or (repeats, figures)
    mean, std = (
        type(values[0])(*row.tolist()) if hasattr(values[0], "_fields") else _plain(row)
        for row in (figures.mean(axis=0), figures.std(axis=0, ddof=1))
    )
    return TwoSampleFloor(mean, std, (n, m), repeats)


def _plain(row):
    return tuple(row.tolist()) if row.ndim else float(row)
