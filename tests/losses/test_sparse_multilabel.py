import functools

import keras
import numpy as np
import pytest
from gradients import (
    differentiated,
    numerical_gradient,
    relative_error,
    value_and_gradient,
)
from keras import ops

from keras_ext.losses import (
    SparseMultilabelCategoricalCrossentropy,
    multilabel_categorical_crossentropy,
    sparse_multilabel_categorical_crossentropy,
)

CLASSES = 7
LABELS = np.array(
    [
        [2, 5, -1, -1],
        [3, 3, 3, 0],  # repeated
        [-1, -1, -1, -1],  # empty
        [6, 7, -5, 900],  # out of range
        [0, 1, 2, 3],
    ]
)


def scores_of(scale=1.0, seed=0):
    return (scale * np.random.default_rng(seed).normal(size=(5, CLASSES))).astype("float32")


def reference(labels, scores, first=0):
    """The loss of each row in float64; classes below `first` and masked scores do not exist."""
    losses = []
    for row, row_scores in zip(labels, scores, strict=True):
        exists = [c for c in range(first, CLASSES) if row_scores[c] > -1e29]
        gold = set(row.tolist())
        negative = [0.0, *(row_scores[c] for c in exists if c not in gold)]
        positive = [0.0, *(-row_scores[c] for c in exists if c in gold)]
        losses.append(np.logaddexp.reduce(negative) + np.logaddexp.reduce(positive))
    return np.array(losses)


def loss_and_gradient(labels, scores, compiled=False, **options):
    function = functools.partial(sparse_multilabel_categorical_crossentropy, labels, **options)
    return value_and_gradient(lambda s: function(s), scores, compiled=compiled)


@pytest.mark.parametrize("mask_zero", [False, True])
def test_value_and_gradient_equal_float64(mask_zero):
    function = differentiated(
        lambda s: sparse_multilabel_categorical_crossentropy(LABELS, s, mask_zero=mask_zero)
    )
    first = 1 if mask_zero else 0
    for scale in (0.1, 5.0, 500.0):
        scores = scores_of(scale)
        value, (gradient,) = function(scores)
        assert (value.dtype, value.shape) == (np.float32, (5,))
        assert relative_error(value, reference(LABELS, scores.astype("float64"), first)) < 1e-5
        expected = numerical_gradient(lambda s: reference(LABELS, s, first), scores)
        assert relative_error(gradient, expected) < 1e-5


def test_equals_the_dense_loss():
    labels, scores = LABELS[[0, 1, 2, 4]], scores_of(4.0)[[0, 1, 2, 4]]
    dense = np.zeros((4, CLASSES), "float32")
    for row, classes in enumerate(labels):
        dense[row, classes[classes >= 0]] = 1
    value, (gradient,) = loss_and_gradient(labels, scores)
    expected, (expected_gradient,) = value_and_gradient(
        lambda s: multilabel_categorical_crossentropy(dense, s), scores
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


def test_mask_zero_is_the_loss_without_class_zero():
    labels = np.array([[2, 5, 0, 0], [0, 0, 0, 0], [1, 1, 6, 0]])
    scores = scores_of(3.0)[:3]
    value, (gradient,) = loss_and_gradient(labels, scores, mask_zero=True)
    expected, (expected_gradient,) = loss_and_gradient(labels - 1, scores[:, 1:])
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[:, 1:], expected_gradient, atol=1e-6)
    assert not gradient[:, 0].any()


def test_dominant_true_class_is_exact_where_the_published_form_turns_negative():
    scores = np.array([[15.0] + [-8.0] * 10], "float32")
    value, _ = loss_and_gradient(np.array([[0]]), scores)
    exact = np.log1p(10 * np.exp(-8.0)) + np.log1p(np.exp(-15.0))
    assert float(value[0]) == pytest.approx(exact, rel=1e-5)
    assert float(value[0]) == pytest.approx(0.00335, abs=5e-6)
    assert float(published(scores[0], 0)) == pytest.approx(-1.118, abs=1e-3)


def published(scores, true):
    """The loss of one true class in float32, which is taken out of the sum by subtraction."""
    total = ops.logsumexp(ops.append(scores, [0.0]))
    share = ops.exp(scores[true] - total)
    negative = total + ops.log(ops.clip(1.0 - share, 1e-7, 1.0))
    return negative + ops.softplus(-scores[true])


def test_a_dominant_true_class_is_pushed_up_and_the_published_form_pushes_it_down():
    scores = np.array([[15.0, 2.0]], "float32")
    _, (gradient,) = loss_and_gradient(np.array([[0]]), scores)
    assert gradient[0, 0] == pytest.approx(-1 / (1 + np.exp(15.0)), rel=1e-4)  # -3e-7
    _, (other,) = value_and_gradient(lambda s: published(s, 0), scores[0])
    assert other[0] == pytest.approx(0.094, abs=2e-3)


def test_published_form_agrees_where_nothing_dominates():
    labels, scores = np.arange(5)[:, None], scores_of(0.5)
    value, _ = loss_and_gradient(labels, scores)
    other = [float(published(row, i)) for i, row in enumerate(scores)]
    np.testing.assert_allclose(other, value, rtol=1e-5)


def test_a_config_of_earlier_versions_loads():
    config = {"name": "old", "mask_zero": True, "stable": False}
    loss = SparseMultilabelCategoricalCrossentropy.from_config(config)
    assert loss.mask_zero and "stable" not in loss.get_config()


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_logits_of_60000_are_finite_in_value_and_gradient(dtype, compiled):
    scores = np.tile([[-6e4, 6e4, 0, 0, 0, 0, 0]], (4, 1)).astype(dtype)
    labels = np.array([[0, -1], [1, -1], [-1, -1], [0, 1]])
    value, (gradient,) = loss_and_gradient(labels, scores, compiled=compiled)
    np.testing.assert_allclose(value, reference(labels, scores.astype("float64")), rtol=1e-5)
    assert np.isfinite(gradient).all()
    assert gradient[0, :2].tolist() == [-1.0, 1.0]


@pytest.mark.parametrize(("dtype", "masked"), [("float16", -65504), ("float32", -1e30)])
def test_labels_on_masked_scores_count_not_at_all(dtype, masked):
    scores = np.array([[1.0, -2.0, 0.5, 3.0, masked, masked, masked]], dtype)
    value, (gradient,) = loss_and_gradient(np.array([[0, 5, 4, 5]]), scores)
    kept, (kept_gradient,) = loss_and_gradient(np.array([[0]]), scores[:, :4])
    np.testing.assert_allclose(value, kept, rtol=1e-6)
    assert not gradient[:, 4:].any()
    np.testing.assert_allclose(gradient[:, :4], kept_gradient, rtol=1e-3)


def test_order_repetition_and_padding_of_labels_change_nothing():
    scores = scores_of(3.0)[:1]
    value, (gradient,) = loss_and_gradient(np.array([[2, 5]]), scores)
    for labels in ([5, 2], [2, 5, -1, -1], [2, 2, 5, 5, 2], [-1, 5, -1, 2], [2, 5, CLASSES]):
        other, (other_gradient,) = loss_and_gradient(np.array([labels]), scores)
        np.testing.assert_allclose(other, value, rtol=1e-6)
        np.testing.assert_allclose(other_gradient, gradient, atol=1e-7)


def test_nothing_to_learn_is_zero_in_value_and_gradient():
    scores = np.full((1, CLASSES), -1e3, "float32")
    scores[0, 2] = 1e3
    value, (gradient,) = loss_and_gradient(np.array([[2, -1]]), scores)
    assert not value.any()
    assert not gradient.any()


def test_list_without_entries_is_padding():
    scores = scores_of()
    value, (gradient,) = loss_and_gradient(np.zeros((5, 0), "int32"), scores)
    expected, (expected_gradient,) = loss_and_gradient(np.full((5, 1), -1), scores)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


def test_leading_axes_and_float_labels():
    scores = scores_of(2.0)
    flat, _ = loss_and_gradient(LABELS, scores)
    stacked, _ = loss_and_gradient(LABELS[None].astype("float32"), scores[None])
    np.testing.assert_allclose(stacked, flat[None], rtol=1e-6)
    single, _ = loss_and_gradient(LABELS[0], scores[0])
    np.testing.assert_allclose(single, flat[0], rtol=1e-6)


def test_compiled_model_reports_the_mean_over_samples():
    scores = scores_of(2.0)
    model = keras.Sequential([keras.layers.Identity()])
    model.compile(loss=SparseMultilabelCategoricalCrossentropy(mask_zero=True))
    result = model.evaluate(scores, LABELS, verbose=0)
    assert result == pytest.approx(reference(LABELS, scores, first=1).mean(), rel=1e-5)


def test_other_rank_and_inexact_labels_raise():
    with pytest.raises(ValueError, match="same rank.*Received: y_true.shape="):
        sparse_multilabel_categorical_crossentropy(np.zeros((2, 1, 3)), np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"2\*\*24"):
        sparse_multilabel_categorical_crossentropy(
            np.zeros((1, 1), "float32"), np.zeros((1, 2**24 + 1), "float16")
        )
