"""Normal random numbers that are a function of a seed and a place, on every backend."""

import math
import random

import keras
import numpy as np
from keras import ops

from keras_ext.diffusion.checks import is_traced
from keras_ext.ops.replicas import replica_index
from keras_ext.ops.settings import whole


def seed_pair(seed=None):
    """A seed as a tensor that a compiled function can be given.

    Args:
        seed: int, two integers (a tensor or an array), or None for a random one, which
            `keras.utils.set_random_seed` determines. In a graph of TensorFlow None is another one
            at each call; JAX has nothing to draw it from in a compiled function, and says so.

    Returns:
        (2,) uint32.

    Raises:
        ValueError: for anything else.

    Example:

    >>> keras.ops.convert_to_numpy(seed_pair(7)).tolist()
    [7, 0]
    """
    if seed is None and is_traced():
        return ops.cast(keras.random.randint((2,), 0, 2**31 - 1), "uint32")
    if seed is None:
        seed = random.randrange(2**31)
    if ops.is_tensor(seed) or isinstance(seed, np.ndarray | list | tuple):
        if tuple(seed.shape if hasattr(seed, "shape") else np.shape(seed)) != (2,):
            raise ValueError(f"Expected a seed of two integers. Received: seed={seed!r}")
        return ops.cast(seed, "uint32")
    number = whole("seed", seed, least=0)
    return ops.convert_to_tensor(np.array([number % 2**32, number >> 32 & 0xFFFFFFFF], "uint32"))


def training_seed(generator):
    """A new seed for a step of training, another one on each replica.

    Args:
        generator: `keras.random.SeedGenerator`.

    Returns:
        (2,) uint32.

    Example:

    >>> tuple(training_seed(keras.random.SeedGenerator(0)).shape)
    (2,)
    """
    # Far apart, as the generator counts the steps in the same number.
    replica = ops.cast(ops.stack([0, replica_index()]), "uint32") * _word(0x9E3779B9)
    return seed_pair(generator.next()) + replica


def standard_normal(seed, draw, shape):
    """Standard normal numbers, the same eagerly, in a graph, under XLA and on every backend.

    Number j of draw k is Phi^-1(u), where u in (0, 1) has the 23 highest bits of a hash of the seed,
    k and j. So the numbers of a sample do not depend on how many samples follow it. (Those of
    `keras.random` do, and under XLA TensorFlow draws others than in a graph.) None is beyond 5.2.

    Args:
        seed: (2,) uint32, see `seed_pair`.
        draw: int or int scalar, counts the calls under a seed.
        shape: sizes, which may be tensors.

    Returns:
        float32 of that shape.

    Example:

    >>> seed = seed_pair(0)
    >>> few, many = (standard_normal(seed, 1, (n, 3)) for n in (2, 4))
    >>> bool(np.all(np.asarray(few) == np.asarray(many)[:2]))
    True
    """
    return math.sqrt(2.0) * ops.erfinv(2.0 * uniform(seed, draw, shape) - 1.0)


def uniform(seed, draw, shape):
    """Numbers between 0 and 1, neither of which is among them, as `standard_normal` draws its own.

    Args:
        seed: (2,) uint32, see `seed_pair`.
        draw: int or int scalar, counts the calls under a seed.
        shape: sizes, which may be tensors.

    Returns:
        float32 of that shape.

    Example:

    >>> values = np.asarray(uniform(seed_pair(0), 0, (1000,)))
    >>> bool(0 < values.min() < 0.01 and 0.99 < values.max() < 1)
    True
    """
    bits = ops.right_shift(_hash(seed, draw, shape), _word(9))
    return (ops.cast(bits, "float32") + 0.5) * 2.0**-23  # exact: 24 bits


def random_signs(seed, draw, shape):
    """Numbers 1 and -1, a function of seed and place as `standard_normal` is.

    Args:
        seed: (2,) uint32, see `seed_pair`.
        draw: int or int scalar, counts the calls under a seed.
        shape: sizes, which may be tensors.

    Returns:
        float32 of that shape.

    Example:

    >>> bool(np.all(np.abs(random_signs(seed_pair(0), 0, (4, 5))) == 1))
    True
    """
    bit = ops.right_shift(_hash(seed, draw, shape), _word(31))
    return 2.0 * ops.cast(bit, "float32") - 1.0


def uniform_integers(seed, draw, shape, limit):
    """Integers from 0 to below `limit`, a function of seed and place as `standard_normal` is.

    Args:
        seed: (2,) uint32, see `seed_pair`.
        draw: int or int scalar, counts the calls under a seed.
        shape: sizes.
        limit: int of at most 65,536.

    Returns:
        int32 of that shape.

    Example:

    >>> tuple(uniform_integers(seed_pair(0), 0, (4, 5), 64).shape)
    (4, 5)
    """
    bits = ops.right_shift(_hash(seed, draw, shape), _word(16))
    return ops.cast(ops.right_shift(bits * _word(limit), _word(16)), "int32")


def _hash(seed, draw, shape):
    """32 random bits for each place: each part of the key is mixed in by rounds of its own."""
    count = math.prod(shape) if all(isinstance(n, int) for n in shape) else ops.prod(shape)
    key = _mixed(_mixed(seed[0]) + seed[1])
    key = _mixed(key + ops.cast(draw, "uint32"))
    places = ops.cast(ops.arange(count, dtype="int32"), "uint32")
    return ops.reshape(_mixed(_mixed(places + key) + key), shape)


def _mixed(x):
    """A bijection of 32 bits in which every bit depends on every bit."""
    x = ops.bitwise_xor(x, ops.right_shift(x, _word(16))) * _word(0x7FEB352D)
    x = ops.bitwise_xor(x, ops.right_shift(x, _word(15))) * _word(0x846CA68B)
    return ops.bitwise_xor(x, ops.right_shift(x, _word(16)))


def _word(value):
    return ops.convert_to_tensor(np.uint32(value))
