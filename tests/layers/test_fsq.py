import math

import keras
import numpy as np
import pytest
from gradients import to_numpy
from harness_backend import compiled, value_and_gradients
from keras import ops

from keras_ext.layers import FSQ

RECOMMENDED = {
    15: [5, 3],
    64: [8, 8],
    240: [8, 6, 5],
    512: [8, 8, 8],
    1000: [8, 5, 5, 5],
    1920: [8, 8, 6, 5],
    4375: [7, 5, 5, 5, 5],
    15360: [8, 8, 8, 6, 5],
    64000: [8, 8, 8, 5, 5, 5],
}


def reference(z, levels, mode):
    """Codes and indices, channel by channel in float64."""
    codes, index, stride = np.zeros(z.shape), np.zeros(z.shape[:-1], int), 1
    for i, size in enumerate(levels):
        x = np.float64(z[..., i])
        if mode == "tanh":
            half, offset = (size - 1) * 1.001 / 2, 0.0 if size % 2 else 0.5
            q = np.round(np.tanh(x + np.arctanh(offset / half)) * half - offset)
            codes[..., i], digit = q / (size // 2), q + size // 2
        else:
            digit = np.round((size - 1) / (1 + np.exp(-x)))
            codes[..., i] = 2 * digit / (size - 1) - 1
        index += digit.astype(int) * stride
        stride *= size
    return codes, index


def inputs_of(digits, levels, mode):
    """Vectors that are rounded to the given levels."""
    sizes = np.array(levels)
    if mode == "sigmoid":
        share = np.clip(digits / (sizes - 1), 1e-6, 1 - 1e-6)
        return np.log(share / (1 - share))
    half, offset = (sizes - 1) * 1.001 / 2, np.where(sizes % 2, 0.0, 0.5)
    return np.arctanh((digits - sizes // 2 + offset) / half) - np.arctanh(offset / half)


@pytest.mark.parametrize("mode", ["tanh", "sigmoid"])
@pytest.mark.parametrize("size", RECOMMENDED)
def test_indices_and_codes_are_the_same_things(size, mode):
    levels = RECOMMENDED[size]
    layer, indices = FSQ(levels, mode), np.arange(size)
    assert layer.num_codes == size == math.prod(levels)
    digits = indices[:, None] // np.cumprod([1, *levels[:-1]]) % levels
    z = inputs_of(digits, levels, mode)
    np.testing.assert_array_equal(layer.encode(z), indices)
    codebook = to_numpy(layer.codebook())
    assert len(np.unique(codebook, axis=0)) == size
    np.testing.assert_array_equal(layer.decode(indices), codebook)
    np.testing.assert_array_equal(layer(z), codebook)
    assert codebook.min() == -1.0 and codebook.max() <= 1.0


@pytest.mark.parametrize("mode", ["tanh", "sigmoid"])
@pytest.mark.parametrize("levels", [[3], [4, 7], [8, 5, 6], [16, 15]])
def test_codes_and_indices_of_the_formula(rng, levels, mode):
    z = 2 * rng.normal(size=(5, 40, len(levels)))
    codes, indices = FSQ(levels, mode)(z, return_indices=True)
    expected, places = reference(z, levels, mode)
    np.testing.assert_array_equal(indices, places)
    np.testing.assert_allclose(codes, expected, atol=1e-6)


@pytest.mark.parametrize(("size", "bits"), [(3, 1.564), (5, 2.305), (8, 2.967)])
def test_how_evenly_levels_are_used_by_normal_numbers(rng, size, bits):
    found = to_numpy(FSQ([size]).encode(rng.normal(size=(200_000, 1))))
    shares = np.bincount(found) / len(found)
    assert abs(-np.sum(shares * np.log2(shares)) - bits) < 0.005


@pytest.mark.parametrize("size", range(3, 17))
def test_zero_is_a_code_of_tanh_and_all_levels_are_reached(size):
    layer = FSQ([size])
    assert abs(float(layer.bound(np.zeros((1, 1)))[0, 0])) < 1e-6
    assert float(layer(np.zeros((1, 1)))[0, 0]) == 0.0
    found = to_numpy(layer.encode(np.linspace(-9, 9, 2001)[:, None]))
    assert np.unique(found).tolist() == list(range(size)) and (np.diff(found) >= 0).all()


def test_two_levels_of_sigmoid_share_the_inputs(rng):
    assert abs(to_numpy(FSQ([2], "sigmoid").encode(rng.normal(size=(9999, 1)))).mean() - 0.5) < 0.02


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_codes_are_exact_in_any_policy(policy):
    layer, levels = FSQ([8, 5, 5, 5], dtype=policy), [8, 5, 5, 5]
    digits = np.arange(1000)[:, None] // np.cumprod([1, 8, 5, 5]) % levels
    z = ops.cast(inputs_of(digits, levels, "tanh"), layer.compute_dtype)
    codes, indices = layer(z, return_indices=True)
    np.testing.assert_array_equal(indices, np.arange(1000))
    assert keras.backend.standardize_dtype(codes.dtype) == "float32"
    np.testing.assert_array_equal(codes, FSQ(levels).codebook())
    np.testing.assert_array_equal(layer.decode(indices), codes)


@pytest.mark.parametrize("mode", ["tanh", "sigmoid"])
def test_the_gradient_is_that_of_what_is_rounded(rng, mode):
    layer, z = FSQ([8, 5], mode), ops.cast(rng.normal(size=(20, 2)), "float32")
    weights = rng.normal(size=(20, 2)).astype("float32")

    def gradient(function):
        return value_and_gradients(lambda x: (ops.sum(function(x[0]) * weights), 0), [z])[1][0]

    found, expected = gradient(layer), gradient(layer.bound)
    np.testing.assert_array_equal(found, expected)
    assert (np.abs(found) > 0).all()
    step = np.float32(1e-3)
    slope = (layer.bound(z + step) - layer.bound(z - step)) / (2 * step) * weights
    np.testing.assert_allclose(found, slope, rtol=0.02, atol=2e-3)


def test_extreme_inputs_are_the_outer_levels():
    layer = FSQ([5, 8, 3000])
    np.testing.assert_array_equal(layer.encode([[-1e30] * 3, [1e30] * 3]), [0, 5 * 8 * 3000 - 1])
    assert np.isnan(layer(np.float32([[np.nan, 0, 0]]))[0, 0])


@pytest.mark.parametrize("mode", ["tanh", "sigmoid"])
def test_nan_has_no_index(rng, mode):
    layer, z = FSQ([8, 5], mode), rng.normal(size=(3, 4, 2)).astype("float32")
    spoilt = z.copy()
    spoilt[0, 1, 0] = spoilt[2, 3] = np.nan
    expected = np.where(np.isnan(spoilt).any(-1), -1, layer.encode(z))
    for run in (lambda function: function, compiled):
        codes, indices = run(lambda x: layer(x, return_indices=True))(ops.convert_to_tensor(spoilt))
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_array_equal(np.isnan(codes), np.isnan(spoilt))
        np.testing.assert_array_equal(run(layer.encode)(ops.convert_to_tensor(spoilt)), expected)


def test_what_a_mask_hides_may_be_anything(rng):
    mask, z = np.array([[True, False, True], [False, True, True]]), rng.normal(size=(2, 3, 2))
    clean, spoilt = (np.where(mask[..., None], z, value) for value in (0.0, np.nan))
    layer = FSQ([5, 3])
    np.testing.assert_array_equal(layer(spoilt, mask=mask), layer(clean))


def test_any_rank(rng):
    layer, z = FSQ([5, 3]), rng.normal(size=(2, 3, 4, 5, 2))
    for x in (z, z[0], z[0, 0, 0, 0]):
        codes, indices = layer(x, return_indices=True)
        assert codes.shape == x.shape and indices.shape == x.shape[:-1]
        np.testing.assert_array_equal(layer.decode(indices), codes)


def test_hidden_positions_have_no_index(rng):
    mask, z = np.array([[True, False], [True, True]]), rng.normal(size=(2, 2, 3, 1))
    _, indices = FSQ([5])(z, mask=mask, return_indices=True)
    expected = np.where(mask[..., None], FSQ([5]).encode(z), -1)
    np.testing.assert_array_equal(indices, expected)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "int8"])
def test_integers_of_any_kind_are_indices(dtype):
    layer = FSQ([5, 5, 5, 5])
    np.testing.assert_array_equal(layer.decode(np.array([3, 100], dtype)), layer.decode([3, 100]))


@pytest.mark.parametrize("index", [-1, 15])
def test_indices_out_of_range(index):
    layer = FSQ([5, 3])
    with pytest.raises(ValueError, match=f"from 0 to 14. Received: indices from .*{index}"):
        layer.decode([3, index])
    found = to_numpy(compiled(layer.decode)(ops.convert_to_tensor([3, index])))
    np.testing.assert_array_equal(np.isnan(found), [[False] * 2, [True] * 2])
    np.testing.assert_array_equal(found[:1], layer.decode([3]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": [8, 2]}, "dead dimension. Expected mode='sigmoid'.*levels=.8, 2"),
        ({"levels": [8, 1], "mode": "sigmoid"}, "at least 2. Received: levels=1"),
        ({"levels": [0]}, "at least 2. Received: levels=0"),
        ({"levels": [4.5]}, "an int of at least 2. Received: levels=4.5"),
        ({"levels": []}, "at least one channel"),
        ({"levels": 8}, "a list of the levels.*Received: levels=8"),
        ({"levels": None}, "a list of the levels.*Received: levels=None"),
        ({"levels": [[8]]}, "a list of the levels.*Received: levels=..8"),
        ({"levels": [8] * 11}, "int32.*several FSQ.*8589934592 codes"),
        ({"levels": [5], "mode": "relu"}, "Unknown mode.*mode='relu'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        FSQ(**arguments)


def test_bad_inputs():
    layer = FSQ([5, 3])
    for call in (layer, layer.encode, lambda x: layer.compute_output_shape(x.shape)):
        with pytest.raises(ValueError, match=r"\(\.\.\., 2\).*Received: shape=\(4, 3\)"):
            call(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="integer dtype. Received: dtype=float"):
        layer.decode([0.5])


def test_the_largest_number_of_codes():
    layer = FSQ([2**31 - 1], "sigmoid")
    assert layer.num_codes == 2**31 - 1
