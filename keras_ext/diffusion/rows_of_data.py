"""Data as a stream of checked batches, however they are given."""

import numpy as np
from keras import ops

from keras_ext.diffusion.checks import checked_noise


def rows_of_data(data, conditions, count, batch_size, rng):
    """Batches of data until there were as many samples as asked for.

    Args:
        data: (n, ...) array of floats, n at least 2: it is gone through in random order, again and
            again. Or an iterable of batches (b, ...) or of pairs (batch, dict of conditions), gone
            through from the start whenever it ends.
        conditions: dict or None. With an array, entries that are arrays of n go with the samples.
        count: int, number of samples.
        batch_size: int, the most of a batch.
        rng: NumPy generator.

    Yields:
        (b, ...) float64, and a dict.

    Raises:
        ValueError: for data that are not floats or not finite, fewer than two, and an iterator that
            ends before there were enough.

    Example:

    >>> batches = rows_of_data(np.zeros((3, 2)), None, 7, 4, np.random.default_rng(0))
    >>> [x.shape for x, conditions in batches]
    [(3, 2), (3, 2), (1, 2)]
    """
    array = hasattr(data, "shape")
    if array:
        checked_noise(data, "data")
        data = np.asarray(ops.convert_to_numpy(data))
    elif not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
        raise ValueError(
            f"Expected data as an array or an iterable of batches. Received: data={data!r}"
        )
    while count > 0:
        seen = 0
        for batch, extra in _pieces(data, conditions, rng, batch_size) if array else _pairs(data):
            given = {**(conditions or {}), **extra} if not array else extra
            seen += len(batch)
            for start in range(0, len(batch), batch_size):
                part = slice(start, min(start + batch_size, start + count))
                x = batch[part]
                if len(x):
                    yield x, _along(given, part, len(batch))
                count -= len(x)
            if count <= 0:
                break
        if seen < 2 and count > 0:
            raise ValueError(
                "Expected data of at least two samples: an array, or an iterable that can be gone "
                f"through again or has enough. Received: {seen} samples, {count} are wanting"
            )


def _pieces(data, conditions, rng, batch_size):
    """The samples of an array, once each, in random order."""
    order = rng.permutation(len(data))
    for start in range(0, len(data), batch_size):
        chosen = order[start : start + batch_size]
        yield np.asarray(data[chosen], "float64"), _along(conditions or {}, chosen, len(data))


def _pairs(data):
    """The batches of an iterable, checked."""
    for batch in data:
        extra = {}
        if isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], dict):
            batch, extra = batch
        if not hasattr(batch, "shape"):
            raise ValueError(
                "Expected batches that are arrays, or pairs of an array and a dict of conditions. "
                f"Received: {type(batch).__name__}"
            )
        yield np.asarray(ops.convert_to_numpy(checked_noise(batch, "data")), "float64"), extra


def _along(conditions, chosen, count):
    """The conditions of the chosen ones of `count` samples."""
    return {
        name: np.asarray(value)[chosen] if np.shape(value)[:1] == (count,) else value
        for name, value in conditions.items()
    }
