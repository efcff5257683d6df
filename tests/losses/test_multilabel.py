import functools
import itertools

import keras
import numpy as np
import pytest
from gradients import (
    differentiated,
    numerical_gradient,
    relative_error,
    value_and_gradient,
)

from keras_ext.losses import MultilabelCategoricalCrossentropy, multilabel_categorical_crossentropy


def reference(labels, scores):
    """log(1 + sum (1-t) e^s) + log(1 + sum t e^-s), one class at a time in float64."""
    losses = np.zeros(labels.shape[:-1])
    for row in np.ndindex(losses.shape):
        negative, positive = [0.0], [0.0]
        for label, score in zip(labels[row], scores[row], strict=True):
            if score > -1e29:
                if label < 1:
                    negative.append(score + np.log1p(-label))
                if label > 0:
                    positive.append(-score + np.log(label))
        losses[row] = np.logaddexp.reduce(negative) + np.logaddexp.reduce(positive)
    return losses


def random_case(kind, scale, shape=(4, 6)):
    rng = np.random.default_rng(0)
    labels = rng.random(shape)
    if kind == "hard":
        labels = (labels < 0.4).astype("float64")
    elif kind == "empty":
        labels = np.zeros(shape)
    elif kind == "full":
        labels = np.ones(shape)
    return labels.astype("float32"), (scale * rng.normal(size=shape)).astype("float32")


def loss_and_gradient(labels, scores, **options):
    return value_and_gradient(
        lambda s: multilabel_categorical_crossentropy(labels, s), scores, **options
    )


def test_value_and_gradient_equal_float64():
    function = differentiated(multilabel_categorical_crossentropy)
    for kind, scale in itertools.product(["hard", "soft", "empty", "full"], [0.1, 5.0, 500.0]):
        labels, scores = random_case(kind, scale)
        value, (_, gradient) = function(labels, scores)
        assert value.dtype == np.float32
        exact = labels.astype("float64")
        assert relative_error(value, reference(exact, scores.astype("float64"))) < 1e-5
        expected = numerical_gradient(functools.partial(reference, exact), scores)
        assert relative_error(gradient, expected) < 1e-5


def test_leading_axes_are_kept():
    labels, scores = random_case("soft", 2.0, (2, 3, 5))
    value = np.array(multilabel_categorical_crossentropy(labels, scores))
    expected = reference(labels.astype("float64"), scores.astype("float64"))
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_logits_of_60000_are_finite_in_value_and_gradient(dtype, compiled):
    labels = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [0, 0, 0], [1, 1, 1]], "float32")
    scores = np.tile([[-6e4, 6e4, 0.0]], (5, 1)).astype(dtype)
    value, (gradient,) = loss_and_gradient(labels, scores, compiled=compiled)
    expected = reference(labels.astype("float64"), scores.astype("float64"))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.isfinite(gradient).all()
    assert gradient[0].tolist() == [-1.0, 1.0, 0.0]  # the worst pair is all that counts


@pytest.mark.parametrize(("dtype", "masked"), [("float16", -65504), ("float32", -1e30)])
def test_labels_on_masked_cells_count_not_at_all(dtype, masked):
    labels = np.array([[1, 0, 1, 0.5, 0]], "float32")
    scores = np.array([[2, 1, masked, masked, masked]], dtype)
    value, (gradient,) = loss_and_gradient(labels, scores)
    kept, (kept_gradient,) = loss_and_gradient(labels[:, :2], scores[:, :2])
    np.testing.assert_allclose(value, kept, rtol=1e-6)
    assert not gradient[:, 2:].any()
    np.testing.assert_allclose(gradient[:, :2], kept_gradient, rtol=1e-3)


@pytest.mark.parametrize("masked", [True, False])
def test_nothing_to_learn_is_zero_in_value_and_gradient(masked):
    labels = np.array([[1, 0, 0]], "float32")
    scores = np.array([[1, -1, -1]], "float32") * 1e3
    scores = np.full_like(scores, -1e30) if masked else scores
    value, (gradient,) = loss_and_gradient(labels, scores)
    assert not value.any()
    assert not gradient.any()


@pytest.mark.parametrize("label", [0.02, 0.5, 0.9])
def test_soft_labels_are_learnt_where_sigmoid_2s_is_the_label(label):
    # The two gradients cancel class by class wherever sigmoid(2 s) = t.
    scores = np.array([[0.5 * np.log(label / (1 - label)), 0.3]], "float32")
    labels = np.array([[label, 1 / (1 + np.exp(-0.6))]], "float32")
    _, (gradient,) = loss_and_gradient(labels, scores)
    np.testing.assert_allclose(gradient, np.zeros((1, 2)), atol=1e-6)
    _, (gradient,) = loss_and_gradient(labels, scores + 0.1)
    assert gradient.min() > 1e-3


def test_one_class_and_equal_scores_in_closed_form():
    value = multilabel_categorical_crossentropy(np.array([[1.0]]), np.array([[3.0]]))
    assert float(value[0]) == pytest.approx(np.log1p(np.exp(-3)), rel=1e-5)
    labels = np.array([[1.0] * 3 + [0.0] * 7], "float32")
    value = multilabel_categorical_crossentropy(labels, np.zeros((1, 10), "float32"))
    assert float(value[0]) == pytest.approx(np.log(8) + np.log(4), rel=1e-6)


def test_loss_is_the_same_in_any_order_of_classes():
    labels, scores = random_case("soft", 3.0)
    order = np.random.default_rng(1).permutation(6)
    value = np.array(multilabel_categorical_crossentropy(labels, scores))
    permuted = np.array(multilabel_categorical_crossentropy(labels[:, order], scores[:, order]))
    np.testing.assert_allclose(permuted, value, rtol=1e-6)


def test_swapping_labels_and_signs_changes_nothing():
    labels, scores = random_case("soft", 3.0)
    value = np.array(multilabel_categorical_crossentropy(labels, scores))
    swapped = np.array(multilabel_categorical_crossentropy(1 - labels, -scores))
    np.testing.assert_allclose(swapped, value, rtol=1e-6)


def test_nan_in_labels_or_scores_shows():
    labels, scores = random_case("hard", 1.0)
    for broken in (labels, scores):
        arrays = [np.where(np.eye(4, 6) * (a is broken), np.nan, a) for a in (labels, scores)]
        assert np.isnan(np.array(multilabel_categorical_crossentropy(*arrays))).all()


def test_compiled_model_reports_the_mean_over_samples():
    labels, scores = random_case("hard", 2.0)
    model = keras.Sequential([keras.layers.Identity()])
    model.compile(loss=MultilabelCategoricalCrossentropy())
    expected = reference(labels.astype("float64"), scores.astype("float64"))
    result = model.evaluate(scores, labels, verbose=0)
    assert result == pytest.approx(expected.mean(), rel=1e-5)
    weights = np.array([1.0, 0.0, 2.0, 0.5])
    model.compile(loss=MultilabelCategoricalCrossentropy(reduction="mean_with_sample_weight"))
    result = model.evaluate(scores, labels, sample_weight=weights, verbose=0)
    assert result == pytest.approx(np.average(expected, weights=weights), rel=1e-5)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((3,), (2, 3)), ((1, 3), (2, 3))])
def test_different_shapes_raise(shapes):
    with pytest.raises(ValueError, match="same shape.*Received: y_true.shape="):
        multilabel_categorical_crossentropy(*(np.zeros(shape, "float32") for shape in shapes))
