"""The distances of all pairs of two sets, never all at once."""

import numpy as np

# Up to so many dimensions differences are as fast as a matrix product.
FEW = 64
# Pairs at a time: 1 MiB of them stays in the cache, but a matrix product wants many rows.
PAIRS = 2**17
PAIRS_OF_PRODUCT = 2**20
# A larger set is halved to use the symmetry of its distances to itself.
HALVED = 512


def distance_blocks(x, y):
    """Squared distances of all pairs, some rows of `x` at a time.

    From 65 dimensions on they come of a matrix product, 5 to 10 times as fast; the rows where it
    loses more than 6 of 16 digits, since two points are nearer to each other than to zero, are
    computed from differences, as all are in fewer dimensions.

    Args:
        x: (n, d) float64.
        y: (m, d) float64. If it is `x` itself, the distance of a point to itself is exactly 0.

    Yields:
        Tuples of a slice `rows` of `x` and an array (rows, m) that may be written to.

    Example:

    >>> x, y = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[3.0, 4.0]])
    >>> [(rows.start, block.tolist()) for rows, block in distance_blocks(x, y)]
    [(0, [[25.0], [13.0]])]
    """
    from scipy.spatial.distance import cdist  # here: it takes longer than `import keras_ext`

    few = x.shape[1] <= FEW
    count = max(1, (PAIRS if few else PAIRS_OF_PRODUCT) // len(y))
    x_squares, y_squares = (np.einsum("nd,nd->n", points, points) for points in (x, y))
    for start in range(0, len(x), count):
        rows = slice(start, min(start + count, len(x)))
        if few:
            yield rows, cdist(x[rows], y, "sqeuclidean")
            continue
        squares = x_squares[rows, None] + y_squares
        block = squares - 2 * x[rows] @ y.T
        doubtful = block < 1e-6 * squares
        if x is y:
            itself = np.arange(rows.stop - rows.start), np.arange(rows.start, rows.stop)
            block[itself], doubtful[itself] = 0.0, False
        again = doubtful.any(axis=1)
        if again.any():
            block[again] = cdist(x[rows][again], y, "sqeuclidean")
        yield rows, block


def mean_over_pairs(function, x, y):
    """Mean of a function of the squared distance over all n m pairs.

    Pairs of a set with itself (`y` is `x`) are computed once for both orders.

    Args:
        function: Of an array of squared distances to one of the same shape.
        x: (n, d) float64.
        y: (m, d) float64.

    Returns:
        A float.

    Example:

    >>> mean_over_pairs(np.sqrt, np.array([[0.0], [1.0]]), np.array([[3.0]]))
    2.5
    """
    return float(_sum(function, x, y)) / (len(x) * len(y))


def _sum(function, x, y):
    if x is y and len(x) > HALVED:  # each pair once, not twice
        a, b = np.split(x, [len(x) // 2])
        return _sum(function, a, a) + _sum(function, b, b) + 2 * _sum(function, a, b)
    return sum(function(block).sum() for _, block in distance_blocks(x, y))
