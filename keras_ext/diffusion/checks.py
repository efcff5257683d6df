"""What samplers refuse."""

import keras
import numpy as np
from keras import ops

from keras_ext.ops.traced import is_traced


def checked_noise(noise, name="noise"):
    """A state to begin with, as a float32 tensor.

    Args:
        noise: (b, ...) floats.
        name: str, what errors call it.

    Returns:
        float32 of that shape.

    Raises:
        ValueError: for integers, fewer than two axes, no samples, or, where the values can be read,
            NaN and infinity.

    Example:

    >>> tuple(checked_noise(np.zeros((2, 3))).shape)
    (2, 3)
    """
    shape = tuple(np.shape(noise) if isinstance(noise, list | tuple) else noise.shape)
    given = noise.dtype if hasattr(noise, "dtype") else np.asarray(noise).dtype
    dtype = keras.backend.standardize_dtype(given)
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(f"Expected {name} of a float dtype. Received: dtype={dtype}")
    if len(shape) < 2 or shape[0] == 0 or 0 in shape[1:]:
        raise ValueError(
            f"Expected {name} of shape (batch, ...), at least one sample and one axis beside the "
            f"batch. Received: shape={shape}"
        )
    x = ops.cast(noise, "float32")
    if not is_traced() and not bool(ops.all(ops.isfinite(x))):
        raise ValueError(f"Expected finite {name}. Received: NaN or infinity among its values.")
    return x


def known(name, value, names):
    """An argument that is one of some names.

    Args:
        name: str, the name of the argument.
        value: what was given.
        names: the names that there are.

    Returns:
        The value.

    Raises:
        ValueError: for another value; it lists the names.

    Example:

    >>> known("solver", "heun", ["euler", "heun"])
    'heun'
    """
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"Expected {name} of {', '.join(names)}. Received: {name}={value!r}")
    return value
