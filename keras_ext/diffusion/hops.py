"""The Gaussian hops of DDPM and DDIM: from a time r to a time q nearer to the data."""

import warnings

import numpy as np


def jump2(levels, next_levels):
    """The variance beta_{r|q}^2 = beta_r^2 - (alpha_r / alpha_q)^2 beta_q^2 of the noise from q to r.

    Args:
        levels: alpha_r and beta_r, (n,) float64 each.
        next_levels: alpha_q and beta_q.

    Returns:
        (n,) float64.

    Example:

    >>> bool(np.isclose(jump2((0.6, 0.8), (1.0, 0.0)), 0.64))
    True
    """
    (alpha, beta), (alpha_q, beta_q) = levels, next_levels
    lower = alpha / alpha_q * beta_q
    return (beta - lower) * (beta + lower)


def bayes_hops(levels, next_levels, eta=0.0):
    """The hops with p(x_q) kept: x_q = kappa x_r + gamma x0 + s z.

        s = eta beta_q / beta_r beta_{r|q},  kappa = (beta_q^2 - s^2)^(1/2) / beta_r,
        gamma = alpha_q - alpha_r kappa

    Args:
        levels: alpha_r and beta_r, (n,) float64 each.
        next_levels: alpha_q and beta_q.
        eta: float or (n,), 0 for DDIM, 1 for the posterior of DDPM. Where s would be above beta_q
            it is beta_q, with a warning.

    Returns:
        kappa, gamma and s, (n,) float64 each.

    Example:

    >>> [round(float(x), 3) for x in bayes_hops((0.6, 0.8), (1.0, 0.0))]
    [0.0, 1.0, 0.0]
    """
    (alpha, beta), (alpha_q, beta_q) = levels, next_levels
    noise = eta * beta_q / beta * np.sqrt(jump2(levels, next_levels))
    if np.any(noise > beta_q * (1 + 1e-9)):
        warnings.warn(
            f"With {eta=} some hops would add more noise than there is afterwards; they add that.",
            stacklevel=4,
        )
    noise = np.minimum(noise, beta_q)
    kappa = np.sqrt((beta_q - noise) * (beta_q + noise)) / beta
    return kappa, alpha_q - alpha * kappa, noise
