import keras
import numpy as np
import pytest

from keras_ext.ops import nearest_code


def distances(x, codebook):
    return np.square(x[..., :, None, :] - codebook[..., None, :, :]).sum(-1)


def test_is_that_of_the_least_distance(rng):
    x, codebook = rng.normal(size=(3, 50, 4)), rng.normal(size=(20, 4))
    np.testing.assert_array_equal(nearest_code(x, codebook), distances(x, codebook).argmin(-1))


def test_a_codebook_a_head(rng):
    x, codebook = rng.normal(size=(2, 3, 50, 4)), rng.normal(size=(3, 20, 4))
    np.testing.assert_array_equal(nearest_code(x, codebook), distances(x, codebook).argmin(-1))


def test_the_first_of_equals():
    assert np.asarray(nearest_code(np.zeros((1, 2)), np.ones((3, 2)))).tolist() == [0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_tells_codes_apart_that_lie_near_each_other(dtype):
    """|e|^2 - 2 x e is 16 apart from 0 for all of them, in steps of 0.06 in bfloat16 at 16."""
    codebook = 4 + np.arange(8, dtype="float32")[:, None] / 32
    x = keras.ops.cast(codebook, dtype)
    assert np.asarray(nearest_code(x, codebook)).tolist() == list(range(8))
