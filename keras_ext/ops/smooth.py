from math import comb

import keras
import numpy as np
from keras import backend, ops

from keras_ext.ops.smoothing_kernels import get_kernel, smoothed_coefficients


def smooth(breaks, pieces, kernel="gaussian"):
    """A smooth approximation of a piecewise polynomial: its convolution with a narrow density.

        f_s(x) = integral f(y) p((x - y) / s) / s dy,   s the width

    In closed form. A polynomial becomes another by the moments of p. What the pieces beyond a break
    differ by, sum_m J_m (x - c)^m, adds J_m s^m E max(z + e, 0)^m with z = (x - c) / s and e of
    density p. Here every break adds only the part on the other side of it,

        f_s(x) = piece of x, smoothed + sum_breaks sum_m (+-) J_m s^m E max(e - |z|, 0)^m

    so that far from all breaks nothing is left but the piece, to the last digit. Derivatives are
    those of the sum, and f_s has all of them.

    Args:
        breaks: increasing numbers, n of them.
        pieces: n + 1 lists of coefficients, that of x^0 first: the polynomials from left to right.
        kernel: "gaussian", the normal density, or "logistic", the derivative of the sigmoid.
            Defaults to "gaussian".

    Returns:
        Function `(x, width=1.0)` of a tensor and a number above 0, or a tensor that broadcasts, to
        a tensor of the shape and dtype of x; half precision is computed in float32.

    Raises:
        ValueError: for breaks that do not increase, another number of pieces, an unknown kernel;
            when called with a width that is no number above 0. That of a tensor is not looked at.

    Example:

    >>> import numpy as np
    >>> hat = smooth([-1, 0, 1], [[0], [1, 1], [1, -1], [0]])  # max(1 - |x|, 0)
    >>> np.round(np.asarray(hat(np.array([0.0, 0.5, 3.0]), width=0.1)), 4).tolist()
    [0.9202, 0.5, 0.0]

    Source: Jianlin Su, smooth approximations of functions by a Dirac kernel, 2021,
    https://kexue.fm/archives/8718
    """
    get_kernel(kernel)
    breaks, pieces = _checked(breaks, pieces)
    sums = [smoothed_coefficients(piece, kernel) for piece in pieces]
    jumps = [
        _around(np.subtract(after, before), at)
        for at, before, after in zip(breaks, pieces[:-1], pieces[1:], strict=True)
    ]

    def smoothed(x, width=1.0):
        x, width, dtype = floats(x, width)
        value = _polynomial(sums[0], x, width)
        for at, coefficients in zip(breaks, sums[1:], strict=True):
            value = ops.where(x >= at, _polynomial(coefficients, x, width), value)
        for at, jump in zip(breaks, jumps, strict=True):
            value = value + other_side(x - at, jump, width, kernel)
        return ops.cast(value, dtype)

    return smoothed


def other_side(x, jump, width, kernel):
    """What a smoothed break at 0 adds to the piece on the side of x, from the other side of it.

    Args:
        x: tensor, float32 or float64.
        jump: coefficients J_m of what the piece from 0 on is above the one before.
        width: number or tensor.
        kernel: "gaussian" or "logistic".

    Returns:
        Tensor like `x`.
    """
    ramp, _, _ = get_kernel(kernel)
    after = x >= 0
    z = ops.where(after, -x, x) / width
    value = ops.zeros_like(x)
    for m, coefficient in enumerate(jump):
        if coefficient:
            sign = ops.where(after, -1.0 if m % 2 == 0 else 1.0, 1.0)
            value = value + coefficient * ops.cast(sign, x.dtype) * _power(width, m) * ramp(z, m)
    return value


def floats(x, width):
    """A tensor and a width in the dtype to compute in, and the dtype of the result."""
    if not ops.is_tensor(x):
        x = np.asarray(x)
    dtype = backend.standardize_dtype(x.dtype)
    if not backend.is_float_dtype(dtype):
        dtype = backend.floatx()
    wide = dtype if dtype == "float64" else "float32"
    if not ops.is_tensor(width) and not isinstance(width, keras.Variable):
        if not np.all(np.asarray(width) > 0) or not np.all(np.isfinite(width)):
            raise ValueError(
                "The width is a finite number above 0; a function that is not smoothed has none. "
                f"Received: {width=}"
            )
        width = np.asarray(width, wide)
    return ops.cast(x, wide), ops.cast(width, wide), dtype


def _polynomial(coefficients, x, width):
    value = ops.zeros_like(x)
    for (i, j), coefficient in coefficients.items():
        if coefficient:
            value = value + coefficient * _power(x, i) * _power(width, j)
    return value


def _power(x, exponent):
    # The derivative of x**0 is not a number at 0.
    return x**exponent if exponent else 1.0


def _around(polynomial, at):
    """The coefficients of a polynomial in x - at."""
    return [
        sum(polynomial[k] * comb(k, m) * at ** (k - m) for k in range(m, len(polynomial)))
        for m in range(len(polynomial))
    ]


def _checked(breaks, pieces):
    """Breaks as floats, and pieces as lists of equally many."""
    breaks = [float(at) for at in breaks]
    pieces = [[float(c) for c in piece] or [0.0] for piece in pieces]
    if any(a >= b for a, b in zip(breaks, breaks[1:], strict=False)) or not all(
        np.isfinite([*breaks, *sum(pieces, [])])
    ):
        raise ValueError(
            "Breaks increase, and all numbers are finite. "
            f"Received: breaks={breaks}, pieces={pieces}"
        )
    if len(pieces) != len(breaks) + 1:
        raise ValueError(
            f"Expected {len(breaks) + 1} pieces, one more than breaks. Received: {len(pieces)}"
        )
    degree = max(map(len, pieces))
    return breaks, [piece + [0.0] * (degree - len(piece)) for piece in pieces]
