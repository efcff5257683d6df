import keras
import numpy as np
from keras import ops

MODES = ("subset", "equal_mean")
DISTRIBUTIONS = ("exponential", "beta")
EXACT = 2**24  # the integers up to here are float32 numbers


@keras.saving.register_keras_serializable(package="keras_ext")
class RandomPositions(keras.layers.Layer):
    """Positions for a model that shall read longer sequences than it is trained on.

    In training each sequence gets positions of its own, so that the model meets large distances
    on short sequences. Elsewhere they are fixed. With L = `max_position`:

        subset      training    n different integers of 0, ..., L - 1, sorted
                    inference   floor(i L / n),  i = 0, ..., n - 1
        equal_mean  training    i m / (n - 1),  with a random m of mean n for each sequence
                    inference   0, 1, ..., n - 1

    The m of "equal_mean" comes from an exponential distribution, or from a beta distribution on
    [0, L], that of L x with x ~ Beta(1, L / n - 1); the exponential one is its limit for large L.
    Its positions are fractions: they suit rotary and sinusoidal embedding, and tables that
    interpolate. Padding counts as part of the sequence.

    Args:
        mode: "subset" or "equal_mean". Defaults to "subset".
        max_position: int, L: at least the length of the longest sequence at inference, at most
            2^24. Not used by "equal_mean" with "exponential". Defaults to 2048.
        distribution: "exponential" or "beta", for "equal_mean". Defaults to "exponential".
        seed: int, of the random numbers. None: another one each time. Defaults to None.

    Call arguments:
        inputs: (b, n, ...), token ids or vectors; only their shape counts.
        training: bool, whether positions are random.

    Returns:
        (b, n) float32 whatever the policy, as float16 has no 2049 and bfloat16 no 257.

    Raises:
        ValueError: for an unknown `mode` or `distribution`, a distribution with "subset", a
            `max_position` outside [1, 2^24], and for more than `max_position` places. Where a
            compiled function leaves the length open, TensorFlow raises its own error about `k` in
            training, and none at inference: there, positions of "subset" repeat.

    Example:

    >>> import numpy as np
    >>> layer = RandomPositions(max_position=10)
    >>> np.array(layer(np.zeros((1, 4)))).tolist()
    [[0.0, 2.0, 5.0, 7.0]]

    Source: Anian Ruoss et al., Randomized Positional Encodings Boost Length Generalization of
    Transformers, 2023, https://arxiv.org/abs/2305.16843 (subset; one for a batch, random at
    inference, too); Jianlin Su, 2023, https://kexue.fm/archives/9444 (equal_mean)
    """

    def __init__(
        self,
        mode="subset",
        max_position=2048,
        distribution="exponential",
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if mode not in MODES:
            raise ValueError(f"Unknown mode, expected one of {MODES}. Received: {mode=}")
        if distribution not in DISTRIBUTIONS:
            raise ValueError(
                f"Unknown distribution, expected one of {DISTRIBUTIONS}. Received: {distribution=}"
            )
        if mode == "subset" and distribution != "exponential":
            raise ValueError(
                'A distribution is for mode="equal_mean", there is none in "subset". '
                f"Received: {mode=}, {distribution=}"
            )
        if not 1 <= max_position <= EXACT:
            raise ValueError(
                f"Expected a largest position from 1 to {EXACT}. Received: {max_position=}"
            )
        self.mode = mode
        self.max_position = max_position
        self.distribution = distribution
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        # Positions are no sequence whose padding could be masked.
        self.supports_masking = True

    def call(self, inputs, training=None):
        self._check_length(inputs.shape)
        batch, length = ops.shape(inputs)[:2]
        if training:
            return (
                self._subset(batch, length) if self.mode == "subset" else self._mean(batch, length)
            )
        if inputs.shape[1] is None:
            positions, size = ops.arange(length, dtype="int64"), ops.cast(length, "int64")
        else:  # i L needs int64, which JAX lacks: but it knows every length
            positions, size = np.arange(length, dtype="int64"), length
        if self.mode == "subset":
            positions = positions * self.max_position // size
        return ops.broadcast_to(ops.cast(positions, "float32")[None], (batch, length))

    def _subset(self, batch, length):
        shape = (batch, self.max_position)
        noise = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        # Where the n largest of L random numbers stand is a random subset of size n.
        _, positions = ops.top_k(noise, length)
        return ops.cast(ops.sort(positions, axis=-1), "float32")

    def _mean(self, batch, length):
        size = ops.cast(length, "float32")
        uniform = keras.random.uniform((batch, 1), dtype="float32", seed=self.seed_generator)
        logarithm = ops.log1p(-uniform)  # minus an exponential variable of mean 1; uniform < 1
        if self.distribution == "exponential":
            last = -size * logarithm
        else:
            others = ops.maximum(self.max_position - size, 1e-9)
            last = -self.max_position * ops.expm1(logarithm * size / others)
        steps = ops.arange(length, dtype="int32")
        return last * ops.cast(steps, "float32") / ops.maximum(size - 1, 1)

    def _check_length(self, shape):
        bounded = self.mode == "subset" or self.distribution == "beta"
        if bounded and shape[1] is not None and shape[1] > self.max_position:
            raise ValueError(
                f"The input has more places than there are positions, {self.max_position}. "
                f"Received: length={shape[1]}"
            )

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def compute_output_shape(self, input_shape):
        self._check_length(input_shape)
        return tuple(input_shape[:2])

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), "float32")

    def get_config(self):
        return {
            **super().get_config(),
            "mode": self.mode,
            "max_position": self.max_position,
            "distribution": self.distribution,
            "seed": self.seed,
        }
