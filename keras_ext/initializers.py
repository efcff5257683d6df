"""Initialisers that keep the size of what flows through a deep network."""

import math
from functools import lru_cache

import keras
import numpy as np

MEANS = {"harmonic": -1, "geometric": 0, "arithmetic": 1, "quadratic": 2}  # name -> power


def activation_gain(activation):
    """By how much larger a kernel must be, because an activation makes its inputs smaller.

        gain = 1 / sqrt(E[activation(z)^2]),  z ~ N(0, 1)

    Squared: relu 2, gelu 2.352, silu 2.811, elu 1.551, tanh 2.536, sigmoid 3.409, softplus 1.086.
    A kernel of variance gain^2 / fan_in, behind the activation of standard normal values, gives
    values of mean square 1 again. For an activation and its gain, gain * activation(z) has the
    mean square 1 by itself.

    The expectation is a sum by Gauss and Legendre over pieces of length 1/2. Gauss and Hermite's
    loses digits at kinks (100 nodes for elu: 4e-5 of the square). Kinks and jumps at multiples of
    1/2 cost nothing here, as pieces end there. A kink elsewhere in [-2, 2] costs up to 1e-5 of the
    square, a jump 4 percent.

    It is computed once for each function. The first time must be outside compiled functions, where
    values cannot be read: make an `ActivationScaling` before the model is trained, not in a `build`
    that a training step calls.

    Args:
        activation: name of an activation of Keras, "gelu_tanh", or a function of a tensor, element
            by element.

    Returns:
        float.

    Raises:
        ValueError: for a function that is not element by element (softmax), where the expectation
            is 0 or not finite, and for the first use within a compiled function.

    Example:

    >>> round(activation_gain("relu") ** 2, 5)
    2.0

    Source: Jianlin Su, 2021, https://kexue.fm/archives/8620
    """
    square = _mean_square(_activation(activation))
    if square is None:
        raise ValueError(
            f"The gain is that of a function element by element. Received: {activation=}"
        )
    if not 0 < square < math.inf:
        raise ValueError(
            f"Expected a function whose mean square is positive and finite, not {square}. "
            f"Received: {activation=}"
        )
    return 1 / math.sqrt(square)


# Kept, so that a block that is built while a step is traced finds the gain of its initialiser.
@lru_cache
def _mean_square(function):
    """E[function(z)^2], or None where the function is not element by element."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    middles = np.arange(-11.75, 12, 0.5)[:, None]
    places = (middles + nodes / 4).ravel()
    densities = np.exp(-(places**2) / 2) / math.sqrt(2 * math.pi)
    values = _values(function, places)
    if values.shape != places.shape or not np.allclose(values[:5], _values(function, places[:5])):
        return None
    return float(np.sum(np.tile(weights / 4, len(middles)) * densities * values**2))


def _values(function, places):
    values = function(keras.ops.convert_to_tensor(places.astype("float32")))
    try:
        return keras.ops.convert_to_numpy(values).astype("float64")
    except (NotImplementedError, TypeError) as error:  # TensorFlow's and JAX' for a traced tensor
        raise ValueError(
            "The gain of an activation is first computed outside compiled functions, where values "
            f"can be read; call activation_gain there. Received: activation={function}, traced"
        ) from error


def _activation(identifier):
    """The function of a name; one of this package's goes by its own name, too."""
    if isinstance(identifier, str):
        own = keras.saving.get_registered_object(f"keras_ext>{identifier}")
        return own or keras.activations.get(identifier)
    return keras.activations.get(identifier)


@keras.saving.register_keras_serializable(package="keras_ext")
class ActivationScaling(keras.initializers.VarianceScaling):
    """A kernel whose inputs have passed an activation.

        variance = gain^2 / fan,  gain = `activation_gain(activation)`

    With "fan_in" and inputs activation(z), z standard normal, the products have the mean square 1:
    then all layers of a chain of such kernels and activations see values of the same size. For
    "relu" it is He's initialiser, for "linear" LeCun's. No kernel can give *outputs* of tanh or
    sigmoid the mean square 1; what stays at 1 is what goes into them. A deviation dies out with
    tanh, stays with relu and grows with gelu and silu, which pass a larger share of larger values:
    dozens of such layers need a norm or residuals.

    Args:
        activation: name of an activation of Keras, "gelu_tanh", or a function of a tensor, element
            by element, that of the layer before.
        mode: "fan_in", "fan_out" or "fan_avg". Defaults to "fan_in".
        distribution: "truncated_normal" (at two deviations, made wider by 1.1368472, so that the
            variance is the one above), "untruncated_normal" or "uniform". Defaults to
            "truncated_normal".
        seed: int, None, or `keras.random.SeedGenerator`. Defaults to None.

    Call arguments:
        shape: of the kernel: (fan_in, fan_out), before it the window of a convolution.
        dtype: of the kernel.

    Returns:
        Tensor of `shape`.

    Raises:
        ValueError: for an unknown mode or distribution, and where `activation_gain` does.

    Example:

    >>> import numpy as np
    >>> kernel = np.array(ActivationScaling("gelu", seed=0)((400, 300)))
    >>> round(float(kernel.var() * 400), 1)
    2.4

    Source: Kaiming He et al., Delving Deep into Rectifiers, 2015,
    https://arxiv.org/abs/1502.01852; Jianlin Su, 2021, https://kexue.fm/archives/8620
    """

    def __init__(self, activation, mode="fan_in", distribution="truncated_normal", seed=None):
        gain = activation_gain(activation)
        super().__init__(scale=gain**2, mode=mode, distribution=distribution, seed=seed)
        self.activation = _activation(activation)

    def get_config(self):
        config = super().get_config()
        return {
            "activation": keras.activations.serialize(self.activation),
            **{name: config[name] for name in ("mode", "distribution", "seed")},
        }


@keras.saving.register_keras_serializable(package="keras_ext")
class MeanVarianceScaling(keras.initializers.VarianceScaling):
    """A kernel whose variance is one over a mean of its two widths.

        variance = scale / M(fan_in, fan_out)

        arithmetic      (m + n) / 2, Glorot's: the mean of both gains is 1
        geometric       sqrt(m n): the gains of m -> n -> m are 1, forward and backward
        harmonic        2 m n / (m + n): the mean of the variances 1 / m and 1 / n
        quadratic       sqrt((m^2 + n^2) / 2): the mean of the squared gains is 1
        contraharmonic  (m^2 + n^2) / (m + n): the gains' least squared distance from 1
        a number p      ((m^p + n^p) / 2)^(1 / p), geometric for 0

    A gain is the factor of the mean square: m * variance forward, n * variance backward. They
    differ only where m and n do. Behind one another, d -> 4 d and 4 d -> d have the gain 0.64 with
    "arithmetic", 1 with "geometric" and 1.56 with "harmonic".

    Args:
        scale: float above 0, the squared gain of an activation or another factor. Defaults to 1.
        mean: name of a mean, or the power p. Defaults to "arithmetic".
        distribution: "truncated_normal", "untruncated_normal" or "uniform". The first is cut at
            two deviations, which leaves 0.7737 of a normal variance; as in Keras'
            `VarianceScaling`, the deviation is 1.1368472 times as large to make up for it. Keras'
            `TruncatedNormal(0.02)` makes up for nothing and has the deviation 0.0176. Defaults to
            "truncated_normal".
        seed: int, None, or `keras.random.SeedGenerator`. Defaults to None.

    Call arguments:
        shape: of the kernel: (fan_in, fan_out), before it the window of a convolution, which
            counts in both.
        dtype: of the kernel.

    Returns:
        Tensor of `shape`.

    Raises:
        ValueError: for a `scale` that is not above 0, an unknown `mean` or `distribution`.

    Example:

    >>> import numpy as np
    >>> kernel = np.array(MeanVarianceScaling(mean="geometric", seed=0)((100, 400)))
    >>> round(float(kernel.var() * 200), 1)
    1.0

    Source: Xavier Glorot, Yoshua Bengio, Understanding the difficulty of training deep feedforward
    neural networks, 2010, https://proceedings.mlr.press/v9/glorot10a.html. The reasons for the
    other means are derived here; the question is that of https://kexue.fm/archives/8725
    """

    def __init__(self, scale=1.0, mean="arithmetic", distribution="truncated_normal", seed=None):
        is_power = isinstance(mean, (int, float)) and math.isfinite(mean)
        if not is_power and mean not in (*MEANS, "contraharmonic"):
            raise ValueError(
                f"Unknown mean, expected one of {(*MEANS, 'contraharmonic')} or a finite power. "
                f"Received: {mean=}"
            )
        super().__init__(scale=scale, mode="fan_in", distribution=distribution, seed=seed)
        self.mean = mean

    def __call__(self, shape, dtype=None):
        fan_in, fan_out = _fans(shape)
        scale = self.scale * fan_in / _mean(fan_in, fan_out, self.mean)
        kernel = keras.initializers.VarianceScaling(scale, "fan_in", self.distribution, self.seed)
        return kernel(shape, dtype)

    def get_config(self):
        config = super().get_config()
        kept = {name: config[name] for name in ("scale", "distribution", "seed")}
        return {**kept, "mean": self.mean}


def _mean(first, second, mean):
    if mean == "contraharmonic":
        return (first**2 + second**2) / (first + second)
    power = MEANS.get(mean, mean)
    if power == 0:
        return math.sqrt(first * second)
    # Of the larger one, or of the smaller for p < 0: no power leaves the range of floats.
    base = max(first, second) if power > 0 else min(first, second)
    return base * (((first / base) ** power + (second / base) ** power) / 2) ** (1 / power)


def _fans(shape):
    """Numbers that flow into and out of one place, as Keras counts them."""
    if len(shape) < 2:
        return (shape[0], shape[0]) if shape else (1, 1)
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window
