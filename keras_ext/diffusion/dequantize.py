"""Images of levels as numbers that have a density, and the bits of a level."""

import math

import numpy as np
from keras import ops

from keras_ext.ops.settings import number, whole


def dequantize(images, levels=256, data_range=(-1.0, 1.0), seed=None):
    """Images of integer levels, as floats spread evenly over what each level stands for.

        x = low + (high - low) (y + u - 1 / 2) / (levels - 1),  u uniform in [0, 1)

    Level 0 is around `low` and the last around `high`, where a network that was trained on
    low + (high - low) y / (levels - 1) knows them; the floats reach half a level beyond.

    Args:
        images: (b, ...) integers from 0 to levels - 1, of any dtype.
        levels: int of at least 2: 256 for 8 bits, 17 for scikit-learn's digits.
        data_range: pair of floats, the values of the first and the last level.
        seed: int, or None for a random one.

    Returns:
        (b, ...) float32 NumPy array.

    Raises:
        ValueError: for fewer than two levels, a range that does not rise, and images that are not
            integers from 0 to levels - 1.

    Example:

    >>> x = dequantize(np.array([[0, 16]]), levels=17, seed=0)
    >>> bool(np.all(np.abs(x - [[-1.0, 1.0]]) <= 1 / 16))
    True

    Source: A note on the evaluation of generative models, Lucas Theis, Aaron van den Oord, Matthias
        Bethge, 2015, https://arxiv.org/abs/1511.01844
    """
    width, images = _width(levels, data_range), np.asarray(images)
    if images.dtype.kind not in "iuf":
        raise ValueError(f"Expected images of integers. Received: dtype={images.dtype}")
    if not np.all((images >= 0) & (images < levels) & (images == np.round(images))):
        raise ValueError(
            f"Expected integers from 0 to levels - 1 = {levels - 1}. "
            f"Received: values from {images.min()} to {images.max()}"
        )
    u = np.random.default_rng(seed).random(images.shape)
    return (data_range[0] + width * (images.astype("float64") + u - 0.5)).astype("float32")


def bits_per_dimension(log_likelihood, shape, levels=256, data_range=(-1.0, 1.0)):
    """The bits by which a level of an image is described, from the density of dequantised images.

    The probability of an image y is the density integrated over its cell, of the width
    w = (high - low) / (levels - 1) in each of d dimensions, so that by Jensen's inequality

        -log2 P(y) / d <= -(E_u log p(x(y, u)) / d + log w) / log 2

    with x of `dequantize`, whose arguments have to be the same. One draw of u gives an unbiased
    estimate of the right hand side, and log2(levels) is what a uniform distribution needs.

    Args:
        log_likelihood: (b,) nats of dequantised images, NumPy or a tensor; or their mean.
        shape: tuple of ints, the shape of one image, without the batch.
        levels: int of at least 2.
        data_range: pair of floats, the values of the first and the last level.

    Returns:
        (b,) bits.

    Raises:
        ValueError: for fewer than two levels, a range that does not rise, or a bad shape.

    Example:

    >>> nats = 3 * np.log(127.5 / 256)  # uniform over 256 cells of the width 2 / 255 in 3 dimensions
    >>> float(bits_per_dimension(nats, (3,)).round(6))
    8.0

    Source: A note on the evaluation of generative models, Lucas Theis, Aaron van den Oord, Matthias
        Bethge, 2015, https://arxiv.org/abs/1511.01844
    """
    width = _width(levels, data_range)
    size = math.prod(whole("shape", n) for n in shape)
    if not ops.is_tensor(log_likelihood):
        log_likelihood = np.asarray(log_likelihood, "float64")
    return -(log_likelihood / size + math.log(width)) / math.log(2.0)


def _width(levels, data_range):
    """The width of a level in the unit of the data."""
    levels = whole("levels", levels, least=2)
    low, high = (number("data_range", value) for value in data_range)
    if not low < high:
        raise ValueError(f"Expected a data_range that rises. Received: data_range={data_range}")
    return (high - low) / (levels - 1)
