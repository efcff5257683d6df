import math

import numpy as np
import pytest
from gradients import to_numpy, value_and_gradient
from keras import ops

from keras_ext.ops.attention_normalization import score_factor, weigh_scores
from keras_ext.ops.visible_keys import count_keys

METHODS = ["softmax", "softmax_plus", "squared_relu"]
RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(2, 3, 20), scale=3).astype("float32")
MASK = RNG.random((2, 3, 20)) < [[[0.9]], [[0.4]]]
MASK[1, 2] = False


def weights_of(scores, mask=None, method="softmax"):
    """The weights as the layers take them, which multiply the queries by the factor."""
    factor = score_factor(count_keys(mask, scores.shape[-1]), method)
    return weigh_scores(ops.convert_to_tensor(scores) * factor, mask, method)


def reference(scores, mask, method):
    """One query at a time; what is hidden is left out."""
    weights = np.zeros(scores.shape)
    for row in np.ndindex(scores.shape[:-1]):
        visible = np.flatnonzero(mask[row])
        kept, count = scores[row][visible].astype("float64"), len(visible)
        if method == "squared_relu":
            weights[row][visible] = [max(score, 0) ** 2 / count for score in kept]
            continue
        if method == "softmax_plus":
            kept = kept * math.log(max(count, 16), 512)
        weights[row][visible] = np.exp(kept) / np.exp(kept).sum()
    return weights


@pytest.mark.parametrize("method", METHODS)
def test_weights_are_those_of_the_formula(method):
    weights = weights_of(SCORES, MASK, method)
    assert ops.dtype(weights) == "float32"
    np.testing.assert_allclose(
        to_numpy(weights), reference(SCORES, MASK, method), rtol=2e-5, atol=1e-6
    )


@pytest.mark.parametrize("method", METHODS)
def test_no_mask_means_that_all_keys_are_visible(method):
    weights = to_numpy(weights_of(SCORES, method=method))
    expected = reference(SCORES, np.ones(SCORES.shape, bool), method)
    np.testing.assert_allclose(weights, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(2, 1, 20), (1, 3, 20), (20,), (2, 3, 1)])
def test_the_mask_broadcasts(method, shape):
    mask = np.random.default_rng(1).random(shape) < 0.6
    weights = to_numpy(weights_of(SCORES, mask, method))
    expected = reference(SCORES, np.broadcast_to(mask, SCORES.shape), method)
    np.testing.assert_allclose(weights, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_hidden_keys_change_nothing(method):
    hidden = RNG.normal(size=(2, 3, 30)).astype("float32")
    wide = np.concatenate([hidden, SCORES], axis=-1)
    mask = np.concatenate([np.zeros(hidden.shape, bool), MASK], axis=-1)
    weights = to_numpy(weights_of(wide, mask, method))
    assert np.array_equal(weights[..., :30], np.zeros(hidden.shape))
    narrow = to_numpy(weights_of(SCORES, MASK, method))
    np.testing.assert_allclose(weights[..., 30:], narrow, rtol=1e-5, atol=1e-7)


def test_a_causal_row_is_divided_by_the_keys_up_to_its_own():
    mask = np.tril(np.ones((6, 6), bool))
    weights = to_numpy(weights_of(np.full((6, 6), 3.0, "float32"), mask, "squared_relu"))
    np.testing.assert_allclose(weights.sum(axis=-1), np.full(6, 9.0), rtol=1e-6)
    np.testing.assert_allclose(weights[:, 0], 9 / np.arange(1, 7), rtol=1e-6)


def test_a_low_score_hides_no_key():
    scores = np.array([[2.0, -1e30, -1e30, -1e30]], "float32")
    weights = to_numpy(weights_of(scores, method="squared_relu"))
    assert weights.tolist() == [[1.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(("count", "factor"), [(512, 1.0), (3, 4 / 9), (16, 4 / 9), (64, 6 / 9)])
def test_softmax_plus_sharpens_with_the_number_of_keys_from_16_on(count, factor):
    scores = np.zeros((1, count), "float32")
    scores[0, 0] = 5.0
    weights = to_numpy(weights_of(scores, method="softmax_plus"))
    assert math.log(weights[0, 0] / weights[0, 1]) == pytest.approx(5 * factor, rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_row_without_keys_is_zero_in_value_and_gradient(method, compiled):
    factors = np.arange(1.0, 21.0, dtype="float32")  # a plain sum of softmax has no gradient
    value, (gradient,) = value_and_gradient(
        lambda x: weights_of(x, MASK, method) * factors,
        SCORES,
        compiled=compiled,
    )
    assert np.array_equal(value[1, 2], np.zeros(20))
    assert np.isfinite(gradient).all()
    assert np.array_equal(gradient[~MASK], np.zeros(np.sum(~MASK)))
    assert np.abs(gradient[0]).max() > 0.01


@pytest.mark.parametrize("method", METHODS)
def test_hidden_keys_may_have_any_score(method):
    scores = SCORES.copy()
    scores[~MASK] = np.resize([np.nan, np.inf, -np.inf, 3e38], np.sum(~MASK))
    value, (gradient,) = value_and_gradient(lambda x: weights_of(x, MASK, method), scores)
    np.testing.assert_allclose(value, reference(SCORES, MASK, method), rtol=2e-5, atol=1e-6)
    assert np.isfinite(gradient).all()
