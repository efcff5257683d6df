"""Densities that functions are smoothed with, by what `smooth` needs to know of them.

For a density p of width 1, symmetric about 0:

    ramp(z, m) = integral from 0 of y^m p(z - y) dy = E max(z + e, 0)^m,  for z <= 0, its tail
    moment(m) = E e^m
    harmonic(a) = E cos(a e)
"""

from math import comb, factorial, pi

import numpy as np
from keras import ops


def gaussian_ramp(z, m):
    """E max(z + e, 0)^m of the normal density, for z <= 0.

    r_m = z r_{m-1} + (m - 1) r_{m-2} with r_{-1} the density. Up to here this cancels where z is
    far below 0. Down from a high m it does not: the ratios r_m / r_{m-1} = m / (r_{m+1} / r_m - z)
    are sums of positive numbers.
    """
    density = ops.exp(-0.5 * ops.square(z)) / (2 * pi) ** 0.5
    near = ops.maximum(z, -2.0)
    below, value = density, 0.5 * ops.erfc(-near / 2**0.5)
    for k in range(1, m + 1):
        below, value = value, near * value + max(k - 1, 1) * below
    far, away, last = density, ops.maximum(-z, 2.0), m + 24
    ratio = 0.5 * (ops.sqrt(ops.square(away) + 4 * last) - away)  # as if the next were the same
    ratios = []
    for k in range(last, -1, -1):
        ratio = max(k, 1) / (away + ratio)
        ratios.append(ratio)
    for ratio in ratios[::-1][: m + 1]:
        far = far * ratio
    return ops.where(z > -2.0, value, far)


def gaussian_moment(m):
    """E e^m of the normal density."""
    return 0.0 if m % 2 else float(np.prod(np.arange(1.0, m, 2)))


def gaussian_harmonic(a):
    """E cos(a e) of the normal density."""
    return ops.exp(-0.5 * ops.square(a))


def logistic_ramp(z, m):
    """E max(z + e, 0)^m of the logistic density, for z <= 0: -m! Li_m(-exp(z))."""
    if m == 0:
        return ops.sigmoid(z)
    if m == 1:
        return ops.softplus(z)
    return factorial(m) * _alternating(ops.exp(z), m)


def logistic_moment(m):
    """E e^m of the logistic density."""
    if m == 0:
        return 1.0
    return 0.0 if m % 2 else 2 * factorial(m) * _alternating(1.0, m)


def logistic_harmonic(a):
    """E cos(a e) of the logistic density, pi a / sinh(pi a), for a > 0."""
    return 2 * pi * a * ops.exp(-pi * a) / (1 - ops.exp(-2 * pi * a))


def _alternating(x, m, terms=22):
    """x - x^2 / 2^m + x^3 / 3^m - ..., for x from 0 to 1.

    Chebyshev polynomials give weights of the first terms whose sum differs from the whole one by
    (3 + 8^(1/2))^-terms, also at x = 1: Henri Cohen, Fernando Rodriguez Villegas, Don Zagier,
    Convergence Acceleration of Alternating Series, 2000.
    """
    pieces = [
        terms * factorial(terms + k - 1) * 4**k / factorial(terms - k) / factorial(2 * k)
        if k
        else 1
        for k in range(terms + 1)
    ]
    total, power = 0.0, 1.0
    for k in range(1, terms + 1):
        power = power * x
        weight = sum(pieces[k:]) / sum(pieces)
        total = total + (-1) ** (k + 1) * weight / k**m * power
    return total


KERNELS = {
    "gaussian": (gaussian_ramp, gaussian_moment, gaussian_harmonic),
    "logistic": (logistic_ramp, logistic_moment, logistic_harmonic),
}
"""Name -> ramp, moment, harmonic."""


def get_kernel(kernel):
    """The functions of a kernel."""
    if kernel not in KERNELS:
        raise ValueError(f"Unknown kernel, expected one of {tuple(KERNELS)}. Received: {kernel=}")
    return KERNELS[kernel]


def smoothed_coefficients(piece, kernel="gaussian"):
    """What a polynomial becomes under a kernel of width s: coefficients of x^i s^j.

    Args:
        piece: coefficients of a polynomial, that of x^0 first.
        kernel: "gaussian" or "logistic".

    Returns:
        Dict (i, j) -> float.
    """
    _, moment, _ = get_kernel(kernel)
    coefficients = {}
    for degree, coefficient in enumerate(piece):
        for j in range(0, degree + 1, 2):
            key = degree - j, j
            value = coefficient * comb(degree, j) * moment(j)
            coefficients[key] = coefficients.get(key, 0.0) + value
    return coefficients
