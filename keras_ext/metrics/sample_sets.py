"""Two sets of samples as two sets of points."""

import numpy as np


def two_sets(x, y, least=1):
    """Both sets as rows of float64, once it is sure that they can be compared.

    Args:
        x: (n, ...) numbers; a sample is flattened, and of (n,) each number is a sample.
        y: (m, ...) of the same shape but for the number of samples.
        least: How many samples the metric needs of each set. Defaults to 1.

    Returns:
        A tuple of arrays (n, d) and (m, d).

    Raises:
        ValueError: If the shapes of a sample differ, a set has less than `least` samples, a sample
            has no number in it, or one that is not finite or not real.

    Example:

    >>> x, y = two_sets([[[1, 2], [3, 4]]], [[[5, 6], [7, 8]]])
    >>> x
    array([[1., 2., 3., 4.]])
    """
    x, y = _points("x", x, least), _points("y", y, least)
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            "A sample must have the same shape in both sets. Received: "
            f"x.shape={x.shape}, y.shape={y.shape}"
        )
    return x.reshape(len(x), -1), y.reshape(len(y), -1)


def _points(name, samples, least):
    samples = np.asarray(samples)
    if not np.can_cast(samples.dtype, "float64", "same_kind"):
        raise ValueError(f"Samples must be real numbers. Received: {name} of {samples.dtype}")
    if samples.ndim == 0 or len(samples) < least:
        raise ValueError(
            f"Expected samples of the shape (n, ...), at least {least}. "
            f"Received: {name}.shape={samples.shape}"
        )
    if not samples.size:
        raise ValueError(
            f"A sample must have a number in it. Received: {name}.shape={samples.shape}"
        )
    samples = samples.astype("float64")
    bad = np.argwhere(~np.isfinite(samples))
    if bad.size:
        place = tuple(bad[0].tolist())
        raise ValueError(
            f"Samples must be finite. Received: {name}[{', '.join(map(str, place))}]"
            f"={samples[place]}"
        )
    return samples
