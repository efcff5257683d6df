import numpy as np

from keras_ext.metrics.sample_sets import two_sets


def frechet_distance(x, y):
    """Squared Frechet distance of two Gaussians that have the means and covariances of two sets.

        |mean_x - mean_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2))

    With features of an Inception network it is known as FID; here the features are yours: those of
    any network, or the samples themselves. It sees nothing beyond the first two moments. With
    C_x = A' A and C_y = B' B, the trace of the root is the sum of the singular values of A B', so
    no matrix root is taken, and singular covariances (n <= d, constant features) are as exact as
    others.

    Floor: small sets are biased upwards. Two sets of the same distribution whose covariance has the
    eigenvalues l are in the mean, to first order in 1 / n, at

        (1 / n + 1 / m) (sum_i l_i + sum_ij (1 + [i = j]) l_i l_j / (l_i + l_j) / 2)

    for Gaussian features, which for equal eigenvalues l is l (d + d (d + 1) / 4) (1 / n + 1 / m):
    it grows with the square of the dimension, and 64 features of variance 1 are at 1.1 with 2000
    samples each, and at 0.1 with 22 000. So values at different n are no comparison; `two_sample_floor` says the
    floor at yours.

    Args:
        x: (n, ...) features, n >= 2, numbers of any dtype; those of a sample are flattened to d.
        y: (m, ...) features of the same shape, m >= 2.

    Returns:
        A float, in the unit of the features squared. Rounding may make a zero negative by some
        1e-15 of the variance.

    Raises:
        ValueError: If the sets cannot be compared: features of different shapes, less than 2
            samples (one has no covariance), not finite.

    Example:

    >>> round(frechet_distance([-1.0, 0.0, 1.0], [1.0, 3.0, 5.0]), 12)  # 3^2 + (1 - 2)^2
    10.0

    Source: Martin Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local
    Nash Equilibrium, 2017, https://arxiv.org/abs/1706.08500
    """
    x, y = two_sets(x, y, least=2)
    means = x.mean(axis=0), y.mean(axis=0)
    a, b = _root(x - means[0]), _root(y - means[1])
    both = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    shift = np.sum((means[0] - means[1]) ** 2)
    return float(shift + np.sum(a**2) + np.sum(b**2) - 2 * both)


def _root(centred):
    """(min(n, d), d) matrix R with R' R = C, the unbiased covariance."""
    return np.linalg.qr(centred, mode="r") / np.sqrt(len(centred) - 1)
