import numpy as np
import pytest
from gradients import to_numpy, value_and_gradient
from keras import ops

from keras_ext.ops import (
    MASKED,
    float32_scores,
    is_masked,
    mask_scores,
    mask_value,
    masked_softmax,
)
from keras_ext.ops.masking import mask_bias

DTYPES = ["float32", "float16", "bfloat16"]
MASK = np.array([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]], bool)
SCORES = np.array([[0.5, -2.0, 3.0, 1.0], [9.0, 1.5, 40.0, -0.5], [7.0, 1.0, -3.0, 0.0]])


def softmax_reference(scores, mask):
    result = np.zeros(scores.shape)
    for row, kept in enumerate(mask):
        exponentials = np.exp(scores[row, kept])
        result[row, kept] = exponentials / exponentials.sum()
    return result


@pytest.mark.parametrize("dtype", DTYPES)
def test_mask_value_is_finite_in_its_dtype_and_recognised(dtype):
    value = ops.convert_to_tensor([mask_value(dtype), 0.0], dtype=dtype)
    assert np.isfinite(np.array(ops.cast(value, "float32"))).all()
    assert np.array(is_masked(value)).tolist() == [True, False]


def test_mask_value_of_each_dtype():
    assert [mask_value(dtype) for dtype in DTYPES] == [-1e30, -65504.0, -1e30]
    assert mask_value(np.dtype("float16")) == np.finfo("float16").min


def test_sum_of_two_masked_float32_scores_is_finite_and_masked():
    both = ops.convert_to_tensor([2 * MASKED, MASKED + 1e28], dtype="float32")
    assert np.isfinite(np.array(both)).all()
    assert np.array(is_masked(both)).all()


@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_only_floating_point_scores_can_be_masked(dtype):
    with pytest.raises(ValueError, match="floating point"):
        mask_value(dtype)


def test_ordinary_scores_are_not_masked():
    assert not np.array(is_masked(np.array([-65504.0, -1e28, np.nan, 0.0], "float32"))).any()
    assert not np.array(is_masked(np.array([-6e4, 6e4, np.nan], "float16"))).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_mask_scores_keeps_dtype_and_kept_scores(dtype):
    masked = mask_scores(ops.convert_to_tensor(SCORES, dtype=dtype), MASK)
    assert ops.dtype(masked) == dtype
    assert np.array_equal(np.array(ops.cast(masked, "float32"))[MASK], SCORES[MASK])
    assert np.array_equal(to_numpy(is_masked(masked)), ~MASK)


def test_scores_plus_the_bias_are_masked_scores():
    scores = SCORES.astype("float32")
    expected = np.array(mask_scores(scores, MASK))
    np.testing.assert_array_equal(np.array(scores + mask_bias(MASK)), expected)


def test_mask_reaches_float32_from_float16_and_unmasked_scores_stay():
    scores = np.array([-65504.0, -6e4, 6e4], "float16")
    result = np.array(float32_scores(scores))
    assert result.dtype == np.float32
    assert result[0] == np.float32(MASKED)
    assert np.array_equal(result[1:], scores[1:].astype("float32"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_equals_reference(dtype):
    result = masked_softmax(ops.convert_to_tensor(SCORES, dtype=dtype), MASK)
    assert ops.dtype(result) == dtype
    tolerance = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}[dtype]  # of the output
    result = np.array(ops.cast(result, "float32"))
    np.testing.assert_allclose(result, softmax_reference(SCORES, MASK), atol=tolerance)


def test_other_axis_is_the_transposed_problem():
    upright = to_numpy(masked_softmax(SCORES.astype("float32"), MASK))
    turned = to_numpy(masked_softmax(SCORES.T.astype("float32"), MASK.T, axis=0))
    np.testing.assert_allclose(turned.T, upright, rtol=1e-6)


def test_mask_broadcasts_and_none_keeps_all():
    scores = SCORES.astype("float32")
    row = to_numpy(masked_softmax(scores, MASK[1]))
    np.testing.assert_allclose(row, to_numpy(masked_softmax(scores, np.tile(MASK[1], (3, 1)))))
    everything = to_numpy(masked_softmax(scores, np.ones_like(MASK)))
    np.testing.assert_allclose(to_numpy(masked_softmax(scores)), everything)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_empty_row_is_zero_in_value_and_gradient(dtype, compiled):
    scores = SCORES.astype(dtype)
    weights = np.arange(1.0, 5.0, dtype="float32")  # a plain sum of softmax has no gradient

    def weighted(x):
        return ops.cast(masked_softmax(x, MASK), "float32") * weights

    value, (gradient,) = value_and_gradient(weighted, scores, compiled=compiled)
    assert np.array_equal(value[2], np.zeros_like(value[2]))
    assert np.isfinite(gradient).all()
    assert np.array_equal(gradient[~MASK], np.zeros(np.sum(~MASK)))
    assert np.all(gradient[0] != 0)


def test_masked_positions_may_hold_anything():
    scores = SCORES.astype("float32")
    scores[~MASK] = [np.nan, np.inf, -np.inf, np.nan, np.inf, 1e38]
    value, (gradient,) = value_and_gradient(lambda x: masked_softmax(x, MASK), scores)
    np.testing.assert_allclose(value, softmax_reference(SCORES, MASK), rtol=1e-5)
    assert np.array_equal(gradient[~MASK], np.zeros(np.sum(~MASK)))


def test_extreme_float16_scores_are_exact():
    scores = np.array([[6e4, -6e4, 6e4]], "float16")
    mask = np.array([[True, True, False]])
    assert np.array(masked_softmax(scores, mask)).tolist() == [[1.0, 0.0, 0.0]]
