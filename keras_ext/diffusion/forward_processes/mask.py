import keras
from keras import ops

from keras_ext.diffusion.checks import is_traced
from keras_ext.diffusion.forward_processes import tokens
from keras_ext.diffusion.forward_processes.forward_process import ForwardProcess, stream
from keras_ext.diffusion.noise import uniform
from keras_ext.diffusion.predictions import aligned
from keras_ext.ops.settings import effective, number, whole


@keras.saving.register_keras_serializable(package="keras_ext")
class Mask(ForwardProcess):
    """Masks each place with probability t: of a text its tokens, of an image its pixels.

        x_t = mask where u < t, x_0 elsewhere,  u uniform in (0, 1)

    A step back from t to q by the rule "invert" reveals each masked place with probability
    (t - q) / t and never masks one: the posterior of absorbing diffusion. By "resample" all places
    are masked anew, so that what was revealed may be guessed again; by "mix" a share `rho` of them.
    What is not masked stays as it is, whatever a network says of it.

    The loss of tokens is -log p of the masked ones divided by t and by the number of all: its mean
    over times bounds -log p(x_0) per token, in nats. That of floats is the mean square of all.

    Args:
        vocabulary_size: int, number of token ids with that of the mask; None: the data are floats.
        mask_id: int, the token that stands for a masked one, which no data has. None: the last one.
        value: float, what masked floats are, a value that no data has; with channels (b, ..., c) a
            place is masked if all channels have it. Defaults to -2.

    Example:

    >>> process = Mask(vocabulary_size=5)
    >>> x, u = process.sample(np.array([[0, 1, 2, 3]]), 0.5, seed=2)
    >>> np.asarray(x).tolist()
    [[0, 4, 2, 3]]

    Source: Structured Denoising Diffusion Models in Discrete State-Spaces, Jacob Austin et al.,
        2021, https://arxiv.org/abs/2107.03006; Simple and Effective Masked Diffusion Language
        Models, Subham Sekhar Sahoo et al., 2024, https://arxiv.org/abs/2406.07524
    """

    rules = ("invert", "mix", "resample")

    def __init__(self, vocabulary_size=None, mask_id=None, value=None):
        of_tokens = vocabulary_size is not None
        if of_tokens:
            vocabulary_size = whole("vocabulary_size", vocabulary_size, least=2)
            mask_id = vocabulary_size - 1 if mask_id is None else whole("mask_id", mask_id, least=0)
            if mask_id >= vocabulary_size:
                raise ValueError(
                    f"Expected mask_id below {vocabulary_size}. Received: mask_id={mask_id}"
                )
        self.vocabulary_size = vocabulary_size
        self.mask_id = effective("mask_id", mask_id, None, "vocabulary_size", of_tokens)
        value = effective("value", value, -2.0, "floats, vocabulary_size=None", not of_tokens)
        self.value = None if value is None else number("value", value)

    def noise(self, shape, seed, draw=0):
        """Uniform numbers, one for each place."""
        return uniform(seed, draw, self._places(shape))

    def degrade(self, x0, levels, noise):
        """The mask where noise < t."""
        mask = self.value if self.mask_id is None else self.mask_id
        return ops.where(noise < aligned(levels[0], x0), ops.cast(mask, x0.dtype), x0)

    def posterior_noise(self, x0, x, levels, seed, draw=0):
        """Uniform in (0, t) where x is masked, in (t, 1) elsewhere."""
        t = aligned(levels[0], x)
        share = uniform(stream(seed, 1), draw, self._places(ops.shape(x)))
        return ops.where(self.masked(x), share * t, t + share * (1.0 - t))

    def mixed(self, noise, fresh, shares, seed, draw=0):
        """At each place the fresh one with probability `rho`."""
        chosen = uniform(stream(seed, 2), draw, ops.shape(noise)) < aligned(shares[1], noise)
        return ops.where(chosen, fresh, noise)

    def hop(self, x0, x, before, after, rule, shares, seed, draw):
        """`step` for levels instead of times; what is not masked is the data."""
        x0 = ops.where(self.masked(x), x0, x)
        return super().hop(x0, x, before, after, rule, shares, seed, draw)

    def prior(self, shape, seed=None):
        """The mask everywhere."""
        if self.mask_id is not None:
            return ops.full(shape, self.mask_id, "int32")
        return ops.full(shape, self.value, "float32")

    def check_start(self, x, rule):
        """Refuses a start that tells something for the rules that mask it anew."""
        if rule == "invert" or is_traced() or bool(ops.all(self.masked(x))):
            return
        raise ValueError(
            "Some of the start is not masked, and this rule would mask and change it. Expected rule="
            f'"invert", or a start that is all masked. Received: rule={rule!r}'
        )

    def check_data(self, x0, shape):
        """Refuses data that no model can be trained on, also floats that are taken for masked."""
        super().check_data(x0, shape)
        if self.mask_id is None and bool(ops.any(self.masked(ops.convert_to_tensor(x0)))):
            raise ValueError(
                "Some of the data are what stands for masked ones. Expected another value than any "
                f"that the data have. Received: value={self.value}"
            )

    def fits(self, x0):
        """What `check_data` looks for, in a graph."""
        fits = super().fits(x0)
        if self.mask_id is not None:
            return fits
        return ops.logical_and(fits, ops.logical_not(ops.any(self.masked(x0))))

    def masked(self, x):
        """Where x is masked: (b, ...) bool, of floats with channels (b, ..., 1)."""
        if self.mask_id is not None:
            return x == self.mask_id
        equal = x == self.value
        return ops.all(equal, axis=-1, keepdims=True) if len(x.shape) > 2 else equal

    def loss(self, x0, x, prediction, t):
        """See `ForwardProcess.loss`; of tokens sum -log p(x0) / (t n) over the masked of n places."""
        if self.mask_id is None:
            return super().loss(x0, x, prediction, t)
        losses = tokens.cross_entropy(x0, prediction, self.mask_id)
        losses = ops.where(self.masked(x), losses, 0.0)
        return ops.mean(losses, axis=tuple(range(1, len(x0.shape)))) / ops.cast(t, "float32")

    def get_config(self):
        if self.mask_id is None:
            return {"value": self.value}
        return {"vocabulary_size": self.vocabulary_size, "mask_id": self.mask_id}

    def _places(self, shape):
        """The shape of what there is one of for each place."""
        one_for_all_channels = self.mask_id is None and len(shape) > 2
        return (*shape[:-1], 1) if one_for_all_channels else tuple(shape)
