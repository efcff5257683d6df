"""What degrades data, and how a step back is made from a guess of the data."""

import numpy as np
from keras import ops

from keras_ext.diffusion.checks import checked_noise, is_traced
from keras_ext.diffusion.data_checks import check_data, seems_fit
from keras_ext.diffusion.forward_processes import tokens
from keras_ext.diffusion.model_sampling import FIRST_NOISE
from keras_ext.diffusion.noise import seed_pair

RULES = ("resample", "invert", "mix", "increment")


class ForwardProcess:
    """Degrades data: x_t = F_t(x_0, noise), time t from 0, the data, to 1.

    Who has a guess of the data, x0, steps from x_t to an earlier time q by one of four rules:

    - "resample": x_q = F_q(x0, fresh noise).
    - "invert": x_q = F_q(x0, noise'), noise' what made x_t of x0; if that is not one value, it is
      drawn from its distribution given x0 and x_t.
    - "mix": x_q = F_q(x0, noise''), noise'' in between: a share `rho` of it is fresh.
    - "increment": x_q = x_t + F_q(x0, noise') - F_t(x0, noise'): an error of x0 that F_q and F_t
      map alike does not matter.

    A subclass has `rules`, those that make sense for it, the best one first, and defines `degrade`
    and, as it needs them, `levels`, `noise`, `posterior_noise`, `mixed` and `prior`. Processes are
    equal if they are of one class and have the same config.

    Args of all methods: `x0`, `x` are (b, ...) float32 or, of a process of tokens, int32.

    Example:

    >>> from keras_ext.diffusion import forward_processes
    >>> fade = forward_processes.get("fade", value=1.0)
    >>> x0 = np.zeros((1, 2), "float32")
    >>> x, noise = fade.sample(x0, 0.75)
    >>> x.numpy().tolist() if hasattr(x, "numpy") else x.tolist()
    [[0.75, 0.75]]
    >>> float(fade.step(x0, x, 0.75, 0.25)[0, 0])
    0.25

    Source: https://kexue.fm/archives/9262; Cold Diffusion: Inverting Arbitrary Image Transforms
        Without Noise, Arpit Bansal et al., 2022, https://arxiv.org/abs/2208.09392 (increment)
    """

    rules = ()
    """The rules that it has, its default first."""

    vocabulary_size = None
    """Number of token ids, which a network gives a score each; None: the data are floats."""

    mask_id = None
    """A token id that is no data, or None."""

    # === What a subclass defines ===
    def levels(self, t):
        """What depends on time alone: a tuple of values like t, floats, a NumPy array or a tensor."""
        return (t,)

    def noise(self, shape, seed, draw=0):
        """The random part of x_t, a function of seed and place; None: there is none."""
        return None

    def degrade(self, x0, levels, noise):
        """x_t of data, levels, each a scalar or (b,), and noise."""
        raise NotImplementedError

    def posterior_noise(self, x0, x, levels, seed, draw=0):
        """Noise that makes x of x0."""
        return None

    def mixed(self, noise, fresh, shares, seed, draw=0):
        """Noise of the distribution of both; `shares` are (1 - rho^2)^(1/2) and rho."""
        raise NotImplementedError

    def rho(self, t, q):
        """The share of fresh noise in a step from t to q, where none is given."""
        return (t - q) / t

    def prior(self, shape, seed=None):
        """x_1, to begin with.

        Args:
            shape: sizes (b, ...).
            seed: int, (2,) integers, or None for a random one.

        Returns:
            Tensor of that shape.

        Raises:
            ValueError: for a process that leaves something of the data at time 1.
        """
        raise ValueError(
            f"{type(self).__name__} leaves something of the data at time 1, of which nothing is "
            "known. Expected a start: degraded data, such as those of `forward.sample(x0, 1.0)`. "
            f"Received: shape={tuple(shape)}"
        )

    # === What follows ===
    def sample(self, x0, t, seed=None, noise=None):
        """Degrades data.

        Args:
            x0: (b, ...), the data.
            t: float, or (b,) floats.
            seed: int, (2,) integers, or None for a random one.
            noise: what to take as noise; None: it is drawn.

        Returns:
            x_t like x0, and the noise, None where there is none.

        Raises:
            ValueError: for data that the process cannot degrade, and times beyond [0, 1].
        """
        x0 = self.checked(x0, "x0")
        if noise is None:
            noise = self.noise(ops.shape(x0), seed_pair(seed))
        return self.degrade(x0, self.levels(_times("t", t)), noise), noise

    def step(self, x0, x, t, q, rule=None, seed=None, rho=None, draw=0):
        """A step back, from time t to q.

        Args:
            x0: (b, ...), the guess of the data.
            x: (b, ...), x_t.
            t: float, or (b,) floats, above q.
            q: the same.
            rule: str, one of `rules`; None: the first of them.
            seed: int, (2,) integers, or None for a random one.
            rho: float in [0, 1], the share of fresh noise of "mix"; None: the process's own.
            draw: int, counts the steps under a seed.

        Returns:
            (b, ...), x_q.

        Raises:
            ValueError: for another rule, and times that are not 0 <= q < t <= 1.
        """
        rule = self.checked_rule(rule)
        t, q = _times("t", t), _times("q", q)
        if not (ops.is_tensor(t) or ops.is_tensor(q)) and not np.all(q < t):
            raise ValueError(f"Expected a step to an earlier time, q < t. Received: t={t}, q={q}")
        x0, x = self.checked(x0, "x0"), self.checked(x)
        shares = mixing_shares(self.rho(t, q) if rho is None else rho)
        return self.hop(x0, x, self.levels(t), self.levels(q), rule, shares, seed_pair(seed), draw)

    def hop(self, x0, x, before, after, rule, shares, seed, draw):
        """`step` for levels instead of times, unchecked: what the loop of a sampler calls."""
        if rule == "resample":
            return self.degrade(x0, after, self.noise(ops.shape(x), seed, draw))
        noise = self.posterior_noise(x0, x, before, seed, draw)
        if rule == "mix":
            fresh = self.noise(ops.shape(x), seed, draw)
            noise = self.mixed(noise, fresh, shares, seed, draw)
        new = self.degrade(x0, after, noise)
        return x + (new - self.degrade(x0, before, noise)) if rule == "increment" else new

    def loss(self, x0, x, prediction, t):
        """What is lost by a prediction of the data: the mean of (prediction - x0)^2.

        Args:
            x0: (b, ...), the data.
            x: (b, ...), x_t.
            prediction: (b, ...) floats; of tokens (b, ..., vocabulary_size), logits.
            t: (b,) float32.

        Returns:
            (b,) float32.
        """
        error = ops.cast(prediction, "float32") - x0
        return ops.mean(ops.square(error), axis=tuple(range(1, len(x0.shape))))

    def checked_rule(self, rule):
        """A rule that the process has; None stands for the first of them.

        Raises:
            ValueError: for another.
        """
        rule = self.rules[0] if rule is None else rule
        if rule not in self.rules:
            raise ValueError(
                f"{type(self).__name__} has the rules {', '.join(self.rules)}. "
                f"Expected one of them. Received: rule={rule!r}"
            )
        return rule

    def checked(self, x, name="x"):
        """A state as a tensor: float32, or int32 tokens.

        Raises:
            ValueError: for another dtype, no samples, and, where values can be read, NaN, infinity
                and tokens beyond the vocabulary.
        """
        if self.vocabulary_size is None:
            return checked_noise(x, name)
        return tokens.checked_tokens(x, self.vocabulary_size, name)

    def check_start(self, x, rule):
        """Refuses a state that a rule would not keep to, where the values can be read.

        Args:
            x: (b, ...), x at the first time.
            rule: str.

        Raises:
            ValueError: see the process.
        """

    def check_data(self, x0, shape):
        """Refuses data that no model can be trained on, where the values can be read.

        Args:
            x0: (b, ...) array or tensor.
            shape: tuple, that of one sample, or None for any.

        Raises:
            ValueError: see `DenoisingDiffusion`; for tokens beyond the vocabulary.
        """
        if self.vocabulary_size is None:
            return check_data(x0, shape)
        return tokens.check_data(x0, shape, self.vocabulary_size, self.mask_id)

    def fits(self, x0):
        """What `check_data` looks for, in a graph: (b,) or scalar bool."""
        if self.vocabulary_size is None:
            return seems_fit(x0, None, None)
        return tokens.are_data(x0, self.vocabulary_size, self.mask_id)

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash((type(self).__name__, repr(self.get_config())))

    def __repr__(self):
        arguments = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.get_config())
        return f"{type(self).__name__}({arguments})"


def stream(seed, index):
    """Another seed that follows from a seed, for random numbers of another use.

    Args:
        seed: (2,) uint32.
        index: int, 0 for the seed itself.

    Returns:
        (2,) uint32.

    Example:

    >>> stream(seed_pair(0), 1).dtype == stream(seed_pair(0), 0).dtype
    True
    """
    return seed + ops.convert_to_tensor(np.array([0, index * 0x9E3779B9 % 2**32], "uint32"))


def mixing_shares(rho):
    """What is kept, (1 - rho^2)^(1/2), and what is fresh, rho, of noise that is mixed.

    Args:
        rho: float, NumPy array (float64: near 1 little is left in float32) or tensor.

    Returns:
        Pair like rho.

    Example:

    >>> mixing_shares(0.6)
    (0.8, 0.6)
    """
    return ((1.0 - rho) * (1.0 + rho)) ** 0.5, rho


def first_seed(seed):
    """The seed and the draw of the state to begin with: steps count theirs from 0."""
    return seed_pair(seed), FIRST_NOISE


def _times(name, t):
    """Times as float64, or as the tensor that they are."""
    if ops.is_tensor(t):
        if is_traced():
            return ops.cast(t, "float32")
        t = ops.convert_to_numpy(t)
    t = np.asarray(t, "float64")
    if t.ndim > 1 or not np.all((t >= 0) & (t <= 1)):
        raise ValueError(
            f"Expected times between 0, data, and 1, one or (b,). Received: {name}={t}"
        )
    return t
