"""A mixture of Gaussians of which all that diffusion needs is known in closed form.

GMM5: five modes on the unit circle, std 0.1. Functions take x (b, d) and the amplitudes (b,) of data
and noise, and compute in NumPy (float64) or in `keras.ops`, whichever is given as `xp`.
"""

import numpy as np
from keras import ops

ANGLES = 2 * np.pi * np.arange(5) / 5
MEANS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=-1)
WEIGHTS = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
STD = 0.1


class Mixture:
    """Gaussians of one standard deviation: by default the five of GMM5."""

    def __init__(self, means=MEANS, weights=WEIGHTS, std=STD):
        self.means, self.weights = np.asarray(means, "float64"), np.asarray(weights, "float64")
        self.std = std

    @property
    def mean(self):
        return self.weights @ self.means

    @property
    def covariance(self):
        centred = self.means - self.mean
        return (
            self.std**2 * np.eye(centred.shape[1]) + (self.weights[:, None] * centred).T @ centred
        )

    def sample(self, count, seed=0):
        rng = np.random.default_rng(seed)
        modes = rng.choice(len(self.weights), count, p=self.weights)
        return self.means[modes] + self.std * rng.normal(size=(count, self.means.shape[1]))

    def log_density(self, x, alpha=None, beta=None, xp=np):
        """(b,): the logarithm of the density of alpha x0 + beta eps."""
        logits, _, variance = self._modes(xp, x, *self._levels(xp, x, alpha, beta))
        top = _top(xp, logits)
        total = top[:, 0] + xp.log(xp.sum(xp.exp(logits - top), axis=-1))
        return total - 0.5 * x.shape[-1] * xp.log(2 * np.pi * variance[:, 0])

    def posterior_mean(self, x, alpha, beta, xp=np):
        """(b, d): E[x0 | x]."""
        share, means = self._posterior(xp, x, alpha, beta)
        return xp.sum(share[:, :, None] * means, axis=1)

    def posterior_covariance(self, x, alpha, beta, xp=np):
        """(b, d, d): Cov[x0 | x]."""
        share, means = self._posterior(xp, x, alpha, beta)
        centred = means - xp.sum(share[:, :, None] * means, axis=1)[:, None, :]
        spread = xp.einsum("bk,bki,bkj->bij", share, centred, centred)
        variance = self.std**2 * beta**2 / (alpha**2 * self.std**2 + beta**2)
        return spread + variance[:, None, None] * _array(xp, np.eye(self.means.shape[1]))

    def eps(self, x, alpha, beta, xp=np):
        """(b, d): E[eps | x]."""
        return -beta[:, None] * self.score(x, alpha, beta, xp)

    def score(self, x, alpha, beta, xp=np):
        """(b, d): the gradient of `log_density`."""
        logits, centred, variance = self._modes(xp, x, alpha, beta)
        share = _softmax(xp, logits)
        return -xp.sum(share[:, :, None] * centred, axis=1) / variance

    def denoiser(self, schedule, prediction="eps", xp=ops):
        """A denoiser in closed form, in float32 tensors or in NumPy's float64."""

        def denoise(x, t):
            if xp is np:
                x, t = np.asarray(x, "float64"), np.asarray(t, "float64")
            alpha, beta = schedule.alpha_bar(t), schedule.beta_bar(t)
            if prediction == "score":
                return self.score(x, alpha, beta, xp)
            if prediction == "eps":
                return self.eps(x, alpha, beta, xp)
            x0 = self.posterior_mean(x, alpha, beta, xp)
            if prediction == "x0":
                return x0
            eps = self.eps(x, alpha, beta, xp)
            if prediction == "v":
                return alpha[:, None] * eps - beta[:, None] * x0
            alpha_slope, beta_slope = schedule.slopes(t)
            return alpha_slope[:, None] * x0 + beta_slope[:, None] * eps

        return denoise

    def _levels(self, xp, x, alpha, beta):
        count = x.shape[0]
        ones = np.ones(count)
        return (
            _array(xp, ones if alpha is None else alpha),
            _array(xp, 0 * ones if beta is None else beta),
        )

    def _modes(self, xp, x, alpha, beta):
        """Unnormalised log weights (b, k), x - alpha mean (b, k, d), variance (b, 1)."""
        centred = x[:, None, :] - alpha[:, None, None] * _array(xp, self.means)
        variance = (alpha**2 * self.std**2 + beta**2)[:, None]
        squares = xp.sum(centred**2, axis=-1)
        return _array(xp, np.log(self.weights)) - 0.5 * squares / variance, centred, variance

    def _posterior(self, xp, x, alpha, beta):
        """Weights (b, k) and means (b, k, d) of x0 given x in each mode."""
        logits, centred, variance = self._modes(xp, x, alpha, beta)
        gain = (alpha[:, None] * self.std**2 / variance)[:, :, None]
        return _softmax(xp, logits), _array(xp, self.means) + gain * centred


def _array(xp, value):
    return xp.asarray(value) if xp is np else ops.cast(value, "float32")


def _softmax(xp, logits):
    weights = xp.exp(logits - _top(xp, logits))
    return weights / xp.sum(weights, axis=-1, keepdims=True)


def _top(xp, logits):
    """The largest, as a number that has no gradient: it cancels.

    JAX's gradient of a maximum looks for the number that is equal to it, and finds none where XLA
    computes that again with other roundings.
    """
    top = xp.max(logits, axis=-1, keepdims=True)
    return top if xp is np else ops.stop_gradient(top)


def sliced_wasserstein(first, second, directions=64, seed=0):
    """The root mean square, over directions, of the W2 distance of projections; equal counts."""
    rng = np.random.default_rng(seed)
    unit = rng.normal(size=(first.shape[1], directions))
    unit /= np.linalg.norm(unit, axis=0)
    return np.sqrt(np.mean((np.sort(first @ unit, 0) - np.sort(second @ unit, 0)) ** 2))
