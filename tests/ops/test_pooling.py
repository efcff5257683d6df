import keras
import numpy as np
import pytest
from gradients import relative_error, to_numpy, value_and_gradient
from keras import ops

from keras_ext.ops.pooling import POOLINGS, pool

# Padding on the right, none, on the left, one token, a hole, no token.
MASK = np.array(
    [[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 1, 1], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]], bool
)
HIDDEN = np.random.default_rng(0).normal(size=(6, 4, 3)).astype("float32") - 2.0
DTYPES = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}


def reference(hidden, mask, mode):
    """Row by row, from the tokens alone; 0 without tokens."""
    result = np.zeros((len(hidden), hidden.shape[-1]))
    for row, (vectors, kept) in enumerate(zip(hidden.astype("float64"), mask, strict=True)):
        tokens = vectors[kept]
        if len(tokens):
            result[row] = {
                "mean": tokens.mean(axis=0),
                "max": tokens.max(axis=0),
                "last": tokens[-1],
                "cls": tokens[0],
            }[mode]
    return result


def gradient_reference(hidden, mask, mode):
    """The share of each component in the sum of the output, without ties."""
    result = np.zeros(hidden.shape)
    for row, kept in enumerate(mask):
        places = np.flatnonzero(kept)
        if not len(places):
            continue
        if mode == "mean":
            result[row, places] = 1.0 / len(places)
        elif mode == "max":
            winners = places[hidden[row, places].argmax(axis=0)]
            result[row, winners, np.arange(hidden.shape[-1])] = 1.0
        else:
            result[row, places[-1 if mode == "last" else 0]] = 1.0
    return result


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", POOLINGS)
def test_equals_the_naive_value_and_gradient(mode, dtype, compiled):
    def function(hidden):
        return ops.cast(pool(ops.cast(hidden, dtype), MASK, mode), "float32")

    value, (gradient,) = value_and_gradient(function, HIDDEN, compiled=compiled)
    assert relative_error(value, reference(HIDDEN, MASK, mode)) < DTYPES[dtype]
    assert relative_error(gradient, gradient_reference(HIDDEN, MASK, mode)) < DTYPES[dtype]
    assert not value[-1].any() and not gradient[-1].any()


@pytest.mark.slow
@pytest.mark.parametrize("padding", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("mode", POOLINGS)
def test_what_stands_at_padding_changes_nothing(mode, padding):
    padded = np.where(MASK[..., None], HIDDEN, np.float32(padding))
    for compiled in (False, True):
        value, (gradient,) = value_and_gradient(
            lambda hidden: pool(hidden, MASK, mode), padded, compiled=compiled
        )
        assert relative_error(value, reference(HIDDEN, MASK, mode)) < 1e-6
        assert np.isfinite(gradient).all()
        assert not gradient[~MASK].any()


@pytest.mark.parametrize("mode", POOLINGS)
def test_longer_padding_changes_nothing(mode):
    longer = np.concatenate([HIDDEN, np.full((6, 3, 3), 9.0, "float32")], axis=1)
    mask = np.pad(MASK, ((0, 0), (0, 3)))
    np.testing.assert_allclose(
        to_numpy(pool(longer, mask, mode)), to_numpy(pool(HIDDEN, MASK, mode)), rtol=1e-6
    )


@pytest.mark.parametrize("mode", POOLINGS)
def test_without_a_mask_all_are_tokens(mode):
    everywhere = np.ones((6, 4), bool)
    expected = to_numpy(pool(HIDDEN, everywhere, mode))
    np.testing.assert_array_equal(to_numpy(pool(HIDDEN, mode=mode)), expected)
    np.testing.assert_array_equal(
        to_numpy(pool(HIDDEN, everywhere.astype("int32"), mode)), expected
    )
    assert relative_error(expected, reference(HIDDEN, everywhere, mode)) < 1e-6


@pytest.mark.parametrize("mode", POOLINGS)
def test_more_axes_in_front_are_rows(mode):
    hidden, mask = HIDDEN.reshape(2, 3, 4, 3), MASK.reshape(2, 3, 4)
    expected = to_numpy(pool(HIDDEN, MASK, mode)).reshape(2, 3, 3)
    np.testing.assert_array_equal(to_numpy(pool(hidden, mask, mode)), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_mean_of_many_tokens_is_summed_in_float32(dtype):
    # In half precision a sum of 5,000 stops growing, or overflows.
    hidden = ops.cast(np.full((1, 5000, 2), 100.0), dtype)
    pooled = pool(hidden, np.ones((1, 5000), bool))
    assert to_numpy(pooled).tolist() == [[100.0, 100.0]]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("mode", POOLINGS)
def test_what_is_pooled_is_not_rounded(mode, dtype):
    hidden = ops.cast(HIDDEN, dtype)
    expected = reference(to_numpy(ops.cast(hidden, "float32")), MASK, mode)
    pooled = pool(hidden, MASK, mode)
    assert keras.backend.standardize_dtype(pooled.dtype) == "float32"
    assert relative_error(to_numpy(pooled), expected) < 1e-6


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", POOLINGS)
def test_large_numbers_are_kept(mode, dtype):
    largest = {"float16": 65504.0}.get(dtype, 1e28)
    hidden = ops.cast(np.array([[[-largest], [9.0]], [[largest], [-9.0]]]), dtype)
    mask = np.array([[True, False], [True, False]])
    pooled = to_numpy(ops.cast(pool(hidden, mask, mode), "float32"))
    np.testing.assert_allclose(pooled[:, 0], [-largest, largest], rtol=0.01)


def test_nan_at_a_token_shows():
    hidden = np.where(np.arange(4)[:, None] == 1, np.float32(np.nan), HIDDEN)
    for mode in ("mean", "max"):
        assert np.isnan(to_numpy(pool(hidden, MASK, mode))[:2]).all()


def test_another_mode_is_refused():
    with pytest.raises(ValueError, match="Received: mode='sum'"):
        pool(HIDDEN, MASK, "sum")
