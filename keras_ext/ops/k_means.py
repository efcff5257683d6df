from keras import ops

from keras_ext.ops.nearest_code import nearest_code
from keras_ext.ops.similarity import unit_vectors


def k_means(rows, weights, noise, codes, steps, unit=False):
    """Centres of rows by Lloyd's algorithm, which begins with rows drawn at random.

        c_j <- sum_i w_i x_i / sum_i w_i,  over the rows i whose nearest centre is j

    A centre that is nearest to no row stays where it is.

    Args:
        rows: (n, d) float32.
        weights: (n,) float32, what rows count; those of weight 0 are not drawn.
        noise: (n,) random numbers from 0 to 1, which say what rows are drawn.
        codes: int, the number of centres. Where there are fewer rows, some are drawn again.
        steps: int, 0 for the drawn rows themselves.
        unit: bool, whether rows are unit vectors, and centres shall be. Defaults to False.

    Returns:
        (codes, d) float32.

    Example:

    >>> rows = np.float32([[0.0], [4.0], [1.0], [5.0]])
    >>> centres = k_means(rows, np.ones(4, "float32"), np.float32([0.1, 0.2, 0.3, 0.4]), 2, 3)
    >>> np.array(centres).tolist()
    [[0.5], [4.5]]
    """

    def step(_, centres):
        counts, sums = sums_by_code(rows, weights, nearest_code(rows, centres), codes)
        means = sums / ops.maximum(counts, 1e-6)[:, None]
        means = unit_vectors(means) if unit else means
        return ops.where(counts[:, None] > 0, means, centres)

    return ops.fori_loop(0, steps, step, random_rows(rows, weights, noise, codes))


def random_rows(rows, weights, noise, number):
    """Rows in the order of their noise, each once before any comes again.

    Args:
        rows: (n, d).
        weights: (n,); rows of weight 0 are left out, but where all are.
        noise: (n,) numbers from 0 to 1.
        number: int.

    Returns:
        (number, d).

    Example:

    >>> rows = np.float32([[0], [1], [2]])
    >>> found = random_rows(rows, np.float32([1, 0, 1]), np.float32([0.3, 0.2, 0.1]), 3)
    >>> np.array(found).tolist()
    [[2.0], [0.0], [2.0]]
    """
    order = ops.argsort(ops.where(weights > 0, noise, 2.0))
    count = ops.maximum(ops.sum(ops.cast(weights > 0, "int32")), 1)
    places = ops.arange(number, dtype="int32") % count
    return ops.take(rows, ops.take(order, places), axis=0)


def sums_by_code(rows, weights, indices, codes):
    """How much weight each code has, and the weighted sum of its rows.

    Args:
        rows: (n, d) float32.
        weights: (n,) float32.
        indices: (n,) int32, the code of each row.
        codes: int.

    Returns:
        Pair of (codes,) and (codes, d).

    Example:

    >>> ones = np.ones(3, "float32")
    >>> counts, sums = sums_by_code(ones[:, None], ones, np.int32([1, 1, 0]), 3)
    >>> np.array(counts).tolist(), np.array(sums)[:, 0].tolist()
    ([1.0, 2.0, 0.0], [1.0, 2.0, 0.0])
    """
    counts = ops.segment_sum(weights, indices, num_segments=codes)
    return counts, ops.segment_sum(rows * weights[:, None], indices, num_segments=codes)


def smoothed_means(counts, sums, epsilon):
    """The mean of the rows of each code, with Laplace's smoothing of how many they are.

        e_j = sums_j / ((counts_j + epsilon) / (N + K epsilon) N),  N = sum_j counts_j

    Args:
        counts: (codes,) float32.
        sums: (codes, d) float32.
        epsilon: float above 0.

    Returns:
        (codes, d) float32.

    Example:

    >>> means = smoothed_means(np.float32([2, 0]), np.float32([[8], [0]]), 1e-5)
    >>> np.round(means, 3).tolist()
    [[4.0], [0.0]]
    """
    total = ops.sum(counts)
    smooth = (counts + epsilon) / (total + counts.shape[0] * epsilon) * total
    return sums / smooth[:, None]
