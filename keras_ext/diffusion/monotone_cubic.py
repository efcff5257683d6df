"""Smooth interpolation of equally spaced values that keeps their order."""

import numpy as np
from keras import ops


class MonotoneCubic:
    """A piecewise cubic through y_i at i / T, with a continuous slope, monotonic where the y_i are.

    The slope at an inner point is the harmonic mean of those of the two chords, 0 where these
    differ in sign; at the ends it is that of the parabola through three points, held between 0 and
    three times that of the chord.

    Args:
        values: (T + 1,) NumPy array, T >= 1.

    Source: A Method for Constructing Local Monotone Piecewise Cubic Interpolants, F. N. Fritsch and
        J. Butland, 1984, https://doi.org/10.1137/0905021

    Example:

    >>> curve = MonotoneCubic(np.array([0.0, 1.0, 1.0]))
    >>> [float(curve(np, np.float64(t))[0]) for t in (0.0, 0.5, 0.75)]
    [0.0, 1.0, 1.0]
    """

    def __init__(self, values):
        chords = np.diff(values)
        slopes = _slopes(chords)
        left, right = slopes[:-1], slopes[1:]
        columns = [values[:-1], left, 3 * chords - 2 * left - right, left + right - 2 * chords]
        self.coefficients = np.stack(columns, axis=-1)

    def __call__(self, xp, t):
        """Value and slope dy/dt at times t in [0, 1]; `xp` is NumPy or `keras.ops`."""
        count = len(self.coefficients)
        place = t * count
        interval = xp.clip(xp.floor(place), 0, count - 1)
        c0, c1, c2, c3 = self.pieces(xp, xp.cast(interval, "int32") if xp is ops else interval)
        s = place - interval
        return c0 + s * (c1 + s * (c2 + s * c3)), (c1 + s * (2 * c2 + 3 * s * c3)) * count

    def pieces(self, xp, interval):
        """The four coefficients of the cubics of intervals, each of the shape of `interval`."""
        if xp is ops:
            table = ops.convert_to_tensor(self.coefficients.astype("float32"))
            rows = ops.take(table, interval, axis=0)
        else:
            rows = self.coefficients[interval.astype("int64")]
        return [rows[..., i] for i in range(4)]


def _slopes(chords):
    """Slopes at the points, in units of an interval."""
    if len(chords) == 1:
        return np.repeat(chords, 2)
    before, after = chords[:-1], chords[1:]
    same = before * after > 0
    inner = np.where(same, 2 * before * after / np.where(same, before + after, 1.0), 0.0)
    return np.concatenate([[_end(*chords[:2])], inner, [_end(*chords[:-3:-1])]])


def _end(chord, other):
    slope = (3 * chord - other) / 2
    return np.sign(chord) * np.clip(slope * np.sign(chord), 0.0, 3 * abs(chord))
