import keras
import numpy as np
import pytest
from gradients import value_and_gradient

from keras_ext.losses import SmoothAccuracy, SmoothF1, smooth_accuracy, smooth_f1
from keras_ext.ops import MASKED


def softmax(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_accuracy_is_the_probability_of_the_others(rng):
    scores, labels = rng.normal(size=(4, 5, 7)).astype("float32"), rng.integers(0, 7, (4, 5))
    expected = 1 - np.take_along_axis(softmax(scores), labels[..., None], -1)[..., 0]
    np.testing.assert_allclose(np.asarray(smooth_accuracy(labels, scores)), expected, rtol=1e-5)


def test_accuracy_has_the_gradient_of_the_docstring(rng):
    scores, label = rng.normal(size=(1, 5)).astype("float32"), np.array([2])
    _, (gradient,) = value_and_gradient(lambda scores: smooth_accuracy(label, scores), scores)
    p = softmax(scores)
    np.testing.assert_allclose(gradient, p[:, 2:3] * (p - np.eye(5)[label]), atol=1e-6)


def test_accuracy_is_exact_for_confident_scores():
    """1 - p_t is exp(-20) here, which 1 minus a float32 is not."""
    loss = np.asarray(smooth_accuracy(np.array([0]), np.float32([[20.0, 0.0]])))
    np.testing.assert_allclose(loss, [np.exp(-20.0)], rtol=1e-5)


def test_large_scores_count_right_and_wrong(rng):
    scores, labels = rng.normal(size=(50, 4)).astype("float32"), rng.integers(0, 4, 50)
    accuracy = np.mean(scores.argmax(-1) == labels)
    loss = np.mean(np.asarray(smooth_accuracy(labels, 1e4 * scores)))
    np.testing.assert_allclose(1 - loss, accuracy, atol=1e-6)


@pytest.mark.parametrize("width", [0.5, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_f1_is_that_of_the_formula(rng, width, smoothing):
    scores, labels = rng.normal(size=(6, 9)).astype("float32"), rng.random((6, 9)) < 0.4
    p = 1 / (1 + np.exp(-scores / width))
    expected = 1 - (2 * (labels * p).sum(-1) + smoothing) / (labels.sum(-1) + p.sum(-1) + smoothing)
    loss = np.asarray(smooth_f1(labels, scores, width, smoothing))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_a_narrow_step_gives_the_f1_of_what_is_above_0(rng):
    scores, labels = rng.normal(size=(40, 5)).astype("float32"), rng.random((40, 5)) < 0.5
    labels[:, 0] = True
    right, predicted = (labels & (scores > 0)).sum(-1), (scores > 0).sum(-1)
    expected = 2 * right / (labels.sum(-1) + predicted)
    loss = np.asarray(smooth_f1(labels, scores, 1e-4, 0))
    np.testing.assert_allclose(1 - loss, expected, atol=1e-3)


def test_f1_without_labels_and_masked_scores():
    scores = np.float32([[-40.0, -40.0, MASKED], [40.0, -40.0, MASKED], [MASKED] * 3])
    labels = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1]])
    np.testing.assert_allclose(np.asarray(smooth_f1(labels, scores)), [0, 0, 0], atol=1e-6)
    _, (gradient,) = value_and_gradient(lambda scores: smooth_f1(labels, scores), scores)
    assert np.isfinite(gradient).all() and not gradient[:, 2].any()


@pytest.mark.parametrize(("loss", "labels"), [(SmoothAccuracy(), 1), (SmoothF1(0.5), 2)])
def test_they_train(rng, loss, labels):
    x = rng.normal(size=(64, 2)).astype("float32")
    y = (x > 0).astype("int32") if labels == 2 else (x[:, 0] > 0).astype("int32")
    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(0.1), loss)
    losses = model.fit(x, y, batch_size=64, epochs=40, verbose=0).history["loss"]
    assert losses[-1] < 0.12 < losses[0]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: SmoothF1(width=0), "above 0"),
        (lambda: SmoothF1(smoothing=-1), "at least 0"),
        (lambda: smooth_f1(np.zeros((2, 3)), np.zeros((2, 4))), "same shape"),
        (lambda: smooth_accuracy(np.zeros((2, 4)), np.zeros((2, 4))), "labels"),
        (lambda: SmoothAccuracy()(np.zeros((2, 4)), np.zeros((2, 4))), "labels"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
