"""By what the scores of attention are multiplied: by a constant, or by what the row sees."""

import math
from numbers import Real

import keras
from keras import ops

NAMES = ("sqrt_dim", "log_n", "grad_max", "cosine")


@keras.saving.register_keras_serializable(package="keras_ext")
class LogN:
    """A scale that grows with the number of visible keys, so that attention stays as sharp.

        scale(n, d) = log(max(n, min_length)) / log(train_length) / sqrt(d)

    The entropy of the weights grows with log n; this holds it about where it is at
    `train_length` keys, where the scale is the usual 1 / sqrt(d). It treats the sharpness only:
    a task that averages over all keys is not served by it.

    Args:
        train_length: int above 1, keys at which nothing changes. Defaults to 512.
        min_length: int, shorter rows count as so long. Defaults to 16.
        clip: bool, whether rows shorter than `train_length` keep the usual scale. Defaults to
            False.

    Raises:
        ValueError: for lengths out of their range.

    Example:

    >>> float(LogN(train_length=64)(4096.0, 1))
    2.0

    Source: Jianlin Su, the scale of attention seen from the invariance of entropy, 2021,
    https://kexue.fm/archives/8823
    """

    def __init__(self, train_length=512, min_length=16, clip=False):
        if train_length < 2 or min_length < 1:
            raise ValueError(
                "Expected a train_length of at least 2 and a min_length of at least 1. "
                f"Received: {train_length=}, {min_length=}"
            )
        self.train_length = train_length
        self.min_length = min_length
        self.clip = clip

    def __call__(self, keys, size):
        keys = ops.maximum(ops.cast(keys, "float32"), float(self.min_length))
        factor = ops.log(keys) / math.log(self.train_length)
        return (ops.maximum(factor, 1.0) if self.clip else factor) / math.sqrt(size)

    def get_config(self):
        return {
            "train_length": self.train_length,
            "min_length": self.min_length,
            "clip": self.clip,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_ext")
class GradMax:
    """The scale at which a bound of the gradient of the softmax is largest.

        scale(n, d) = a(n) / sqrt(d),  where  exp(a^2) (1 + 2 a^2) = n

    For n independent standard normal scores s, a maximises a (1 - sum of p^2) for p = softmax(a s)
    if the sums are replaced by their expectations. They are not near their expectations just
    there: the mean gradient goes on growing beyond a(n). So this is a scale to try, not the best.

    Example:

    >>> round(float(GradMax()(512.0, 1)), 3)
    2.008

    Source: Jianlin Su, the scale of attention seen from the gradient, 2023,
    https://kexue.fm/archives/9812; the closed form is derived here.
    """

    def __call__(self, keys, size):
        log_keys = ops.log(ops.maximum(ops.cast(keys, "float32"), 1.0))
        square = log_keys
        # log of the equation, x + log(1 + 2 x) = log n with x = a^2, is concave: after its first
        # step Newton's method rises to the root, and 5 steps are within float32 of it.
        for _ in range(5):
            error = square + ops.log(1.0 + 2.0 * square) - log_keys
            square = ops.maximum(square - error / (1.0 + 2.0 / (1.0 + 2.0 * square)), 0.0)
        return ops.sqrt(square) / math.sqrt(size)

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_ext")
class Cosine:
    """Scores that are cosines, divided by a temperature.

        score = (q / |q|) . (k / |k|) / temperature

    Args:
        temperature: float above 0. Defaults to 0.05.

    Raises:
        ValueError: for another temperature.

    Example:

    >>> float(Cosine(temperature=0.5)(64.0, 128))
    2.0
    """

    def __init__(self, temperature=0.05):
        if not temperature > 0:
            raise ValueError(f"The temperature must be above 0. Received: {temperature=}")
        self.temperature = temperature

    def __call__(self, keys, size):
        return ops.convert_to_tensor(1.0 / self.temperature, "float32")

    def get_config(self):
        return {"temperature": self.temperature}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def get_attention_scale(identifier):
    """The scale that an argument `attention_scale` means.

        True, "sqrt_dim"    1 / sqrt(d)
        False               1
        "log_n"             `LogN()`
        "grad_max"          `GradMax()`
        "cosine"            `Cosine()`
        a number            itself
        a callable          what it gives for the number of visible keys, at least 1, float32
                            (..., 1), and d

    Args:
        identifier: one of these, or the config of a serialised one.

    Returns:
        A number, or a function of the number of visible keys and d.

    Raises:
        ValueError: for anything else.

    Example:

    >>> get_attention_scale("log_n").train_length
    512
    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if identifier is True or identifier == "sqrt_dim":
        return sqrt_dim
    objects = {"log_n": LogN, "grad_max": GradMax, "cosine": Cosine}
    if isinstance(identifier, str) and identifier in objects:
        return objects[identifier]()
    if identifier is False:
        return 1.0
    if callable(identifier):
        return identifier
    if isinstance(identifier, Real) and math.isfinite(identifier):
        return float(identifier)
    raise ValueError(
        f"Unknown scale of attention, expected a bool, one of {NAMES}, a finite number or a "
        f"function of the number of visible keys and the size. Received: {identifier!r}"
    )


def sqrt_dim(keys, size):
    """The usual scale, 1 / sqrt(size), whatever the number of keys.

    Example:

    >>> sqrt_dim(512.0, 64)
    0.125
    """
    return size**-0.5


def scale_query_and_key(query, key, scale, keys):
    """Queries, and keys where they must be, so that their products are scaled scores, in float32.

    Scaling a query costs less than scaling its scores, and leaves them to a fused kernel.

    Args:
        query: (b, n, size) or (b, n, heads, size).
        key: (b, m, size) or (b, m, heads, size).
        scale: what `get_attention_scale` gives.
        keys: float32 (b or 1, n or 1, 1) or scalar, the number of keys that each query sees.

    Returns:
        `query` and `key` in float32.

    Example:

    >>> import numpy as np
    >>> one = np.ones((1, 1, 4), "float32")
    >>> query, key = scale_query_and_key(one, one, Cosine(temperature=1.0), 1.0)
    >>> float(ops.sum(query * key))
    1.0
    """
    query, key = ops.cast(query, "float32"), ops.cast(key, "float32")
    if isinstance(scale, Cosine):
        query, key = _unit(query), _unit(key)
    if callable(scale):
        # Of a row that sees nothing a scale such as 1 / n would be infinite.
        scale = scale(ops.maximum(keys, 1.0), query.shape[-1])
    if len(query.shape) == 4 and len(getattr(scale, "shape", ())) == 3:
        scale = ops.expand_dims(scale, -1)
    return query * scale, key


def _unit(x):
    # On JAX `ops.normalize` has no gradient at 0.
    return x * ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-12)
