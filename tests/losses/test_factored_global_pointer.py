import keras
import numpy as np
import pytest
from gradients import (
    differentiated,
    numerical_gradient,
    relative_error,
    value_and_gradient,
)

from keras_ext.layers import EfficientGlobalPointer
from keras_ext.losses import (
    FactoredGlobalPointerCrossentropy,
    factored_global_pointer_crossentropy,
    global_pointer_crossentropy,
)
from keras_ext.ops import dense_span_scores

HEADS, SIZE, LENGTH = 3, 2, 6
SPANS = np.array(
    [
        # nested, crossing, repeated, one cell gold for two types
        [[0, 1, 4], [0, 2, 3], [1, 3, 5], [0, 1, 4], [1, 1, 4], [2, 0, 0]],
        # no such type, beyond the text, on padding, end before start, before the text, valid
        [[3, 0, 0], [0, 2, 6], [0, 2, 5], [0, 3, 1], [1, -1, 2], [2, 1, 3]],
        [[-1, -1, -1]] * 6,
    ]
)


def factors_of(scale=1.0, seed=0, lengths=(LENGTH, 4, 5)):
    rng = np.random.default_rng(seed)
    factored = rng.normal(size=(len(lengths), LENGTH, 2 * (SIZE + HEADS)))
    factored[..., : 2 * SIZE] *= np.sqrt(scale)  # queries and keys are multiplied
    factored[..., 2 * SIZE :] *= scale
    factored = np.round(factored * 16) / 16  # scores without rounding
    for sample, length in enumerate(lengths):
        factored[sample, length:, 2 * SIZE :] = -1e30
    return factored.astype("float32")


def random_spans(seed, batch=3, count=6):
    """Labels in and out of range, with repetition and cells shared by types."""
    rng = np.random.default_rng(seed)
    spans = rng.integers(-1, LENGTH + 1, (batch, count, 3))
    spans[..., 0] = rng.integers(-1, HEADS + 1, (batch, count))
    spans[:, 1] = spans[:, 0]
    spans[:, 3, 1:] = spans[:, 2, 1:]
    return spans


def reference(spans, factored, tril_mask=True):
    """Every pair of tokens of every type, one at a time in float64."""
    losses = np.zeros((len(spans), HEADS))
    for b, head in np.ndindex(losses.shape):
        query, key, starts, ends = np.split(
            factored[b].astype("float64"), [SIZE, 2 * SIZE, 2 * SIZE + HEADS], axis=1
        )
        tokens = [i for i in range(LENGTH) if starts[i, head] > -1e29]
        gold = set(map(tuple, spans[b].tolist()))
        negative, positive = [0.0], [0.0]
        for i in tokens:
            for j in tokens:
                score = query[i] @ key[j] + starts[i, head] + ends[j, head]
                if i > j and tril_mask:
                    continue
                if (head, i, j) in gold:
                    positive.append(-score)
                else:
                    negative.append(score)
        losses[b, head] = np.logaddexp.reduce(negative) + np.logaddexp.reduce(positive)
    return losses.mean(1)


def loss_and_gradient(spans, factored, tril_mask=True, **options):
    return value_and_gradient(
        lambda x: factored_global_pointer_crossentropy(spans, x, HEADS, SIZE, tril_mask),
        factored,
        **options,
    )


def check(spans, factored, **options):
    """Value and gradient equal those of float64."""
    value, (gradient,) = loss_and_gradient(spans, factored, **options)
    assert relative_error(value, reference(spans, factored)) < 1e-5
    expected = numerical_gradient(lambda x: reference(spans, x), factored)
    assert relative_error(gradient, expected) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("tril_mask", [True, False])
def test_value_and_gradient_equal_the_dense_loss(tril_mask):
    spans = np.concatenate([SPANS, random_spans(1)])
    of_factors = differentiated(
        lambda x: factored_global_pointer_crossentropy(spans, x, HEADS, SIZE, tril_mask)
    )
    of_dense = differentiated(
        lambda x: global_pointer_crossentropy(spans, dense_span_scores(x, HEADS, SIZE, tril_mask))
    )
    for seed, scale in enumerate([0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]):
        factored = np.concatenate([factors_of(scale, seed), factors_of(scale, seed + 10)])
        value, (gradient,) = of_factors(factored)
        dense, (dense_gradient,) = of_dense(factored)
        assert (value.dtype, value.shape) == (np.float32, (6,))
        assert relative_error(value, dense) < 1e-5
        assert relative_error(gradient, dense_gradient) < 1e-5
        assert relative_error(value, reference(spans, factored, tril_mask)) < 1e-5


def test_gradient_equals_finite_differences_of_float64():
    check(SPANS, factors_of(2.0))


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_scores_that_spread_over_hundreds_are_exact(compiled):
    # The best start comes after the best end, so all spans score far below their sum.
    factored = factors_of(1.0)
    factored[0, -1, 2 * SIZE : 2 * SIZE + HEADS] = 300.0
    factored[0, 0, 2 * SIZE + HEADS :] = 300.0
    check(SPANS, factored, compiled=compiled)


def test_dominant_gold_span_does_not_cancel():
    # Taking exp(30) away from a sum in float32 would lose all that is left.
    factored = np.zeros((1, LENGTH, 2 * (SIZE + HEADS)), "float32")
    factored[..., 2 * SIZE :] = -4.0
    factored[0, 1, 0], factored[0, 4, SIZE] = 38.0, 1.0
    spans = np.array([[[head, 1, 4] for head in range(HEADS)]])
    exact = np.log1p(20 * np.exp(-8.0)) + np.log1p(np.exp(-30.0))
    assert reference(spans, factored)[0] == pytest.approx(exact)
    check(spans, factored)


def test_all_pairs_gold():
    pairs = [(i, j) for i in range(LENGTH) for j in range(i, LENGTH)]
    spans = np.array([[(head, i, j) for head in range(HEADS) for i, j in pairs]])
    check(spans, factors_of(2.0, 2, lengths=(LENGTH,)))


def test_no_token_and_one_token():
    factored = factors_of(1.0, 3, lengths=(0, 1))
    spans = np.array([[[1, 0, 0]], [[1, 0, 0]]])
    value, (gradient,) = loss_and_gradient(spans, factored)
    assert value[0] == 0
    assert not gradient[0].any()
    check(spans, factored)


def test_nothing_to_learn_is_zero_in_value_and_gradient():
    factored = np.zeros((1, LENGTH, 2 * (SIZE + HEADS)), "float32")
    factored[..., 2 * SIZE :] = -500.0
    factored[0, 1, 0], factored[0, 4, SIZE] = 2000.0, 1.0
    spans = np.array([[[head, 1, 4] for head in range(HEADS)]])
    value, (gradient,) = loss_and_gradient(spans, factored)
    assert not value.any()
    assert not gradient.any()


def test_order_repetition_and_padding_of_spans_change_nothing():
    factored = factors_of(2.0)
    value, (gradient,) = loss_and_gradient(SPANS, factored)
    order = np.random.default_rng(2).permutation(6)
    padded = np.concatenate([SPANS[:, order], SPANS[:, ::2], np.full((3, 2, 3), -1)], axis=1)
    other, (other_gradient,) = loss_and_gradient(padded.astype("float32"), factored)
    np.testing.assert_allclose(other, value, rtol=1e-6)
    np.testing.assert_allclose(other_gradient, gradient, atol=1e-6)


def test_list_without_entries_is_padding():
    factored = factors_of()
    value, (gradient,) = loss_and_gradient(np.zeros((3, 0, 3), "int32"), factored)
    padded, (padded_gradient,) = loss_and_gradient(np.full((3, 2, 3), -1), factored)
    np.testing.assert_allclose(value, padded, rtol=1e-6)
    np.testing.assert_allclose(gradient, padded_gradient, atol=1e-7)


def test_what_padding_holds_changes_nothing():
    factored = factors_of(1.0)
    value, (gradient,) = loss_and_gradient(SPANS, factored)
    factored[1, 4:, : 2 * SIZE] = 1e4
    other, (other_gradient,) = loss_and_gradient(SPANS, factored)
    np.testing.assert_allclose(other, value, rtol=1e-6)
    np.testing.assert_allclose(other_gradient[1, :4], gradient[1, :4], atol=1e-6)
    assert not other_gradient[1, 4:].any()


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("level", [6e4, -6e4])
def test_float16_factors_of_60000_are_finite_in_value_and_gradient(level, compiled):
    factored = np.full((1, LENGTH, 2 * (SIZE + HEADS)), level, "float16")
    factored[0, :, : 2 * SIZE] = 1.0
    factored[0, -1, 2 * SIZE :] = -65504  # padding
    value, (gradient,) = loss_and_gradient(SPANS[:1], factored, compiled=compiled)
    exact = factored.astype("float64")
    exact[0, -1, 2 * SIZE :] = -1e30
    np.testing.assert_allclose(value, reference(SPANS[:1], exact), rtol=1e-5)
    assert np.isfinite(gradient).all()
    assert gradient.any()
    assert not gradient[0, -1].any()


def test_lowest_float16_number_in_a_query_is_no_mask():
    factored = np.zeros((1, LENGTH, 2 * (SIZE + HEADS)), "float16")
    factored[0, 0, :SIZE] = factored[0, 1, SIZE : 2 * SIZE] = -65504
    value, (gradient,) = loss_and_gradient(SPANS[:1], factored)
    np.testing.assert_allclose(value, reference(SPANS[:1], factored), rtol=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_fit_with_filler_rows_of_weight_zero_equals_fit_without_them():
    inputs = np.random.default_rng(4).normal(size=(3, LENGTH, 8)).astype("float32")
    inputs[2] *= 1e3  # a filler row may hold anything finite

    def weights_after_a_step(rows, sample_weight):
        keras.utils.set_random_seed(0)
        head = EfficientGlobalPointer(HEADS, SIZE, factored=True)
        model = keras.Sequential([keras.Input((LENGTH, 8)), head])
        loss = FactoredGlobalPointerCrossentropy(HEADS, SIZE, reduction="mean_with_sample_weight")
        model.compile("sgd", loss=loss)
        history = model.fit(
            inputs[rows],
            SPANS[rows],
            sample_weight=sample_weight,
            batch_size=len(rows),
            shuffle=False,
            verbose=0,
        )
        return history.history["loss"][0], np.concatenate(
            [weight.ravel() for weight in model.get_weights()]
        )

    loss, weights = weights_after_a_step([0, 1], np.ones(2))
    filled_loss, filled_weights = weights_after_a_step([0, 1, 2], np.array([1.0, 1.0, 0.0]))
    assert filled_loss == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(filled_weights, weights, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "factored", "message"),
    [
        ((1, 4, 3), (1, LENGTH, 11), "3 types with head_size 2"),
        ((1, 4, 2), (1, LENGTH, 10), "type, start, end"),
        ((1, HEADS, LENGTH, LENGTH), (1, LENGTH, 10), "type, start, end"),
    ],
)
def test_other_shapes_raise(labels, factored, message):
    with pytest.raises(ValueError, match=message):
        factored_global_pointer_crossentropy(
            np.zeros(labels, "int32"), np.zeros(factored, "float32"), HEADS, SIZE
        )
