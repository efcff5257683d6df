import keras
import numpy as np
import pytest
from gradients import (
    differentiated,
    numerical_gradient,
    relative_error,
    value_and_gradient,
)

from keras_ext.losses import (
    GlobalPointerCrossentropy,
    global_pointer_crossentropy,
    multilabel_categorical_crossentropy,
)

HEADS, LENGTH = 3, 5
SPANS = np.array(
    [
        [[0, 1, 3], [0, 2, 3], [1, 1, 3], [0, 1, 3], [2, 0, 4], [-1, -1, -1]],
        [[2, 0, 2], [2, 1, 4], [3, 0, 0], [0, 2, 5], [0, 3, 1], [1, -1, 2]],  # 2 valid
        [[-1, -1, -1]] * 6,
    ]
)
LENGTHS = (5, 4, 5)  # the span that ends at 4 is on padding in the second sample


def scores_of(scale=1.0):
    scores = scale * np.random.default_rng(0).normal(size=(3, HEADS, LENGTH, LENGTH))
    return np.where(valid_cells(), scores, -1e30).astype("float32")


def valid_cells():
    tokens = np.arange(LENGTH) < np.array(LENGTHS)[:, None]
    upper = np.tri(LENGTH, dtype=bool).T
    return (tokens[:, :, None] & tokens[:, None, :] & upper)[:, None].repeat(HEADS, 1)


def gold_of(spans):
    gold = [set(map(tuple, sample)) for sample in spans.tolist()]
    return [{span for span in sample if min(span) >= 0} for sample in gold]


def reference(spans, scores):
    """Every cell of every type, one at a time in float64."""
    losses = np.zeros((len(spans), HEADS))
    for (b, head), gold in zip(
        np.ndindex(losses.shape), np.repeat(gold_of(spans), HEADS), strict=True
    ):
        negative, positive = [0.0], [0.0]
        for i, j in np.ndindex(LENGTH, LENGTH):
            score = scores[b, head, i, j]
            if score > -1e29 and (head, i, j) in gold:
                positive.append(-score)
            elif score > -1e29:
                negative.append(score)
        losses[b, head] = np.logaddexp.reduce(negative) + np.logaddexp.reduce(positive)
    return losses.mean(1)


def dense_labels(spans):
    labels = np.zeros((len(spans), HEADS, LENGTH, LENGTH), "float32")
    for sample, gold in enumerate(gold_of(spans)):
        for type_, start, end in gold:
            if type_ < HEADS and end < LENGTH:
                labels[sample, type_, start, end] = 1
    return labels


def loss_and_gradient(labels, scores, **options):
    return value_and_gradient(lambda s: global_pointer_crossentropy(labels, s), scores, **options)


@pytest.mark.parametrize("labels", [SPANS, SPANS.astype("float32"), dense_labels(SPANS)])
def test_value_and_gradient_equal_float64(labels):
    function = differentiated(lambda s: global_pointer_crossentropy(labels, s))
    for scale in (0.3, 5.0, 300.0):
        scores = scores_of(scale)
        value, (gradient,) = function(scores)
        assert (value.dtype, value.shape) == (np.float32, (3,))
        assert relative_error(value, reference(SPANS, scores.astype("float64"))) < 1e-5
        expected = numerical_gradient(lambda s: reference(SPANS, s), scores)
        assert relative_error(gradient, expected) < 1e-5
        assert not gradient[~valid_cells()].any()


def test_is_the_mean_over_types_of_the_multilabel_loss():
    labels, scores = dense_labels(SPANS), scores_of(2.0)
    per_type = [
        np.array(
            multilabel_categorical_crossentropy(
                labels[:, head].reshape(3, -1), scores[:, head].reshape(3, -1)
            )
        )
        for head in range(HEADS)
    ]
    result = np.array(global_pointer_crossentropy(labels, scores))
    np.testing.assert_allclose(result, np.mean(per_type, axis=0), rtol=1e-6)


def test_soft_labels_are_learnt_where_sigmoid_2s_is_the_label():
    scores = np.random.default_rng(1).normal(size=(1, 2, 3, 3)).astype("float32")
    labels = 1 / (1 + np.exp(-2 * scores))
    _, (gradient,) = loss_and_gradient(labels, scores)
    np.testing.assert_allclose(gradient, np.zeros_like(scores), atol=1e-6)


def test_order_repetition_and_padding_of_spans_change_nothing():
    scores = scores_of(3.0)
    value, (gradient,) = loss_and_gradient(SPANS, scores)
    order = np.random.default_rng(2).permutation(6)
    padded = np.concatenate([SPANS, SPANS[:, ::2], np.full((3, 2, 3), -1)], axis=1)
    for labels in (SPANS[:, order], padded):
        other, (other_gradient,) = loss_and_gradient(labels, scores)
        np.testing.assert_allclose(other, value, rtol=1e-6)
        np.testing.assert_allclose(other_gradient, gradient, atol=1e-6)


def test_longer_padding_of_the_text_changes_nothing():
    scores = scores_of(2.0)
    longer = np.full((3, HEADS, LENGTH + 2, LENGTH + 2), -1e30, "float32")
    longer[..., :LENGTH, :LENGTH] = scores
    spans = np.where(SPANS[..., 2:] < LENGTH, SPANS, -1)
    value = np.array(global_pointer_crossentropy(spans, scores))
    np.testing.assert_allclose(np.array(global_pointer_crossentropy(spans, longer)), value)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("labels", [SPANS[:1], dense_labels(SPANS[:1])])
@pytest.mark.parametrize("level", [6e4, -6e4])
def test_float16_logits_of_60000_are_finite_in_value_and_gradient(level, labels, compiled):
    scores = np.where(valid_cells()[:1], level, -65504).astype("float16")
    value, (gradient,) = loss_and_gradient(labels, scores, compiled=compiled)
    exact = np.where(valid_cells()[:1], np.float64(np.float16(level)), -1e30)
    np.testing.assert_allclose(value, reference(SPANS[:1], exact), rtol=1e-5)
    assert np.isfinite(gradient).all()
    assert gradient.any()
    assert not gradient[~valid_cells()[:1]].any()


@pytest.mark.parametrize("labels", [SPANS, dense_labels(SPANS)])
def test_sample_without_tokens_is_zero_in_value_and_gradient(labels):
    scores = scores_of()
    scores[0] = -1e30
    value, (gradient,) = loss_and_gradient(labels, scores)
    assert value[0] == 0
    assert value[1] > 0
    assert not gradient[0].any()


def test_no_entity_is_log_of_one_plus_the_pairs():
    scores = np.zeros((1, HEADS, LENGTH, LENGTH), "float32")
    for count in (0, 4):
        value = global_pointer_crossentropy(np.full((1, count, 3), -1), scores)
        assert float(value[0]) == pytest.approx(np.log1p(LENGTH**2), rel=1e-6)


@pytest.mark.parametrize("labels", [SPANS, dense_labels(SPANS)])
def test_filler_rows_of_weight_zero_leave_the_mean(labels):
    scores = scores_of(2.0)
    model = keras.Sequential([keras.layers.Identity()])
    model.compile(loss=GlobalPointerCrossentropy(reduction="mean_with_sample_weight"))
    weights = np.array([1.0, 1.0, 0.0])
    result = model.evaluate(scores, labels, sample_weight=weights, verbose=0)
    expected = reference(SPANS, scores.astype("float64"))[:2].mean()
    assert result == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        ((1, 4, 3), (1, 2, 3, 4)),  # not square
        ((1, 4, 3), (1, 3, 3)),  # no types
        ((1, 4, 3, 3), (1, 2, 3, 3)),  # other types
        ((1, 2, 4, 4), (1, 2, 3, 3)),  # other length
        ((1, 2), (1, 2, 3, 3)),
        ((1, 3, 4), (1, 2, 3, 3)),  # no spans
    ],
)
def test_other_shapes_raise(labels, scores):
    with pytest.raises(ValueError, match="Received"):
        global_pointer_crossentropy(np.zeros(labels, "int32"), np.zeros(scores, "float32"))
