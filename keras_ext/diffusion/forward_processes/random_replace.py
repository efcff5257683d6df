import keras
from keras import ops

from keras_ext.diffusion.forward_processes import tokens
from keras_ext.diffusion.forward_processes.forward_process import (
    ForwardProcess,
    first_seed,
    stream,
)
from keras_ext.diffusion.noise import uniform
from keras_ext.diffusion.predictions import aligned
from keras_ext.ops.settings import whole


@keras.saving.register_keras_serializable(package="keras_ext")
class RandomReplace(ForwardProcess):
    """Replaces each token by a random one with probability t.

        x_t = r where u < t, x_0 elsewhere,  r uniform in the vocabulary, u in (0, 1)

    A step back from t to q by the rule "invert" is the posterior of the Markov process with these
    x_t, which replaces again what it has replaced: a token is drawn anew from p(x_q | x_0) with
    probability (t - q) / (1 - q) / t, or, where it is that of the guess of the data, with
    (t - q) / (1 - q) / (t + V (1 - t)); else it stays. By "resample" all are drawn anew, by "mix" a
    share `rho` more.

    The loss is the mean of -log p over all tokens: a network is not told which were replaced.

    Args:
        vocabulary_size: int, V, number of token ids.

    Example:

    >>> process = RandomReplace(vocabulary_size=50)
    >>> x, noise = process.sample(np.zeros((1, 1000), "int32"), 0.3, seed=0)
    >>> bool(abs(np.mean(np.asarray(x) > 0) - 0.3 * 49 / 50) < 0.05)
    True

    Source: Structured Denoising Diffusion Models in Discrete State-Spaces, Jacob Austin et al.,
        2021, https://arxiv.org/abs/2107.03006
    """

    rules = ("invert", "mix", "resample")

    def __init__(self, vocabulary_size):
        self.vocabulary_size = whole("vocabulary_size", vocabulary_size, least=2)

    def noise(self, shape, seed, draw=0):
        """Uniform numbers u, and random tokens r."""
        return uniform(seed, draw, shape), self._random(shape, seed, draw)

    def degrade(self, x0, levels, noise):
        """r where u < t."""
        u, r = noise
        return ops.where(u < aligned(levels[0], x0), r, x0)

    def hop(self, x0, x, before, after, rule, shares, seed, draw):
        """`step` for levels instead of times."""
        fresh = self.degrade(x0, after, self.noise(ops.shape(x), seed, draw))
        if rule == "resample":
            return fresh
        t, q = aligned(before[0], x), aligned(after[0], x)
        kept = ops.cast(x == x0, "float32")
        anew = (t - q) / ((1.0 - q) * (t + kept * self.vocabulary_size * (1.0 - t)))
        if rule == "mix":
            rho = aligned(shares[1], x)
            anew = rho + (1.0 - rho) * anew
        return ops.where(uniform(stream(seed, 1), draw, ops.shape(x)) < anew, fresh, x)

    def prior(self, shape, seed=None):
        """Random tokens."""
        seed, draw = first_seed(seed)
        return self._random(shape, seed, draw)

    def loss(self, x0, x, prediction, t):
        """See `ForwardProcess.loss`; the mean of -log p(x0)."""
        losses = tokens.cross_entropy(x0, prediction, None)
        return ops.mean(losses, axis=tuple(range(1, len(x0.shape))))

    def get_config(self):
        return {"vocabulary_size": self.vocabulary_size}

    def _random(self, shape, seed, draw):
        share = uniform(stream(seed, 3), draw, shape)
        drawn = ops.cast(ops.floor(share * self.vocabulary_size), "int32")
        return ops.minimum(drawn, self.vocabulary_size - 1)  # a product may be rounded up
