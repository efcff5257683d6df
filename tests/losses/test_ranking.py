import functools
import itertools

import keras
import numpy as np
import pytest
from gradients import differentiated, numerical_gradient, relative_error, to_numpy
from keras import ops

from keras_ext.losses.ranking import ranking_logsumexp

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
LABELS = {
    "random": lambda rng, scores: rng.normal(size=scores.shape),
    "tied": lambda rng, scores: rng.integers(0, 5, scores.shape),
    "binary": lambda rng, scores: rng.integers(0, 2, scores.shape),
    "sorted": lambda rng, scores: scores,
    "reversed": lambda rng, scores: -scores,
}


def reference(labels, scores, scale=20.0, weights=None):
    """The double sum in float64."""
    return exponents_and_value(labels, scores, scale, weights)[1]


def reference_gradient(labels, scores, scale=20.0, weights=None):
    """The share of each pair in the sum goes to one score and from the other."""
    exponents, value = exponents_and_value(labels, scores, scale, weights)
    shares = np.exp(exponents - value)
    return scale * (shares.sum(1) - shares.sum(0))


def exponents_and_value(labels, scores, scale, weights):
    scores, weights = scores.astype("float64"), np.ones(len(scores)) if weights is None else weights
    logs = np.log(weights.astype("float64"))
    exponents = scale * (scores[:, None] - scores) + logs[:, None] + logs
    exponents = np.where(labels[:, None] < labels, exponents, -np.inf)
    return exponents, np.logaddexp.reduce(np.append(exponents, 0.0))


@functools.cache
def compiled_loss(compiled=False, scale=20.0):
    """A function of labels, scores and weights that gives the value and the three gradients."""
    return differentiated(lambda y, s, w: ranking_logsumexp(y, s, 1 / scale, w), compiled)


def loss_and_gradient(labels, scores, weights=None, **options):
    weights = np.ones(len(scores)) if weights is None else weights
    rows = (np.asarray(x, "float32") for x in (labels, scores, weights))
    value, (_, gradient, _) = compiled_loss(**options)(*rows)
    return value, gradient


def case(size, kind="tied", seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.uniform(-1, 1, size).astype("float32")
    weights = rng.uniform(0.1, 2, size).astype("float32")
    return LABELS[kind](rng, scores).astype("float32"), scores, weights


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_value_and_gradient_equal_the_double_sum(size):
    function = compiled_loss()
    for kind in LABELS:
        labels, scores, weights = case(size, kind)
        for w in (weights, np.ones_like(weights)):
            value, (of_labels, gradient, of_weights) = function(labels, scores, w)
            assert (value.dtype, value.shape) == (np.float32, ())
            assert relative_error(value, reference(labels, scores, weights=w)) < 2e-6
            expected = reference_gradient(labels, scores, weights=w)
            assert relative_error(gradient, expected) < 2e-6
            assert not of_labels.any()
            assert not of_weights.any()


def test_gradient_equals_finite_differences_of_float64():
    labels, scores, weights = case(16)
    for scale in (1.0, 7.0):
        _, gradient = loss_and_gradient(labels, scores, weights, scale=scale)
        expected = numerical_gradient(lambda s: reference(labels, s, scale, weights), scores)  # noqa: B023
        assert relative_error(gradient, expected) < 1e-5


@pytest.mark.parametrize("offset", [1000.0, -1e4])
def test_far_scores_lose_no_precision(offset):
    """Differences of float32 scores are exact where they are near to each other."""
    labels, scores, _ = case(64)
    scores = (offset + scores).astype("float32")
    value, gradient = loss_and_gradient(labels, scores)
    assert relative_error(value, reference(labels, scores)) < 2e-6
    assert relative_error(gradient, reference_gradient(labels, scores)) < 5e-6


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_any_spread_of_scores_is_exact(compiled):
    function = compiled_loss(compiled)
    for kind, spread in itertools.product(LABELS, [10.0, 1e4, 1e30]):
        labels, scores, weights = case(50, kind)
        scores = (spread * scores).astype("float32")
        value, (_, gradient, _) = function(labels, scores, weights)
        assert relative_error(value, reference(labels, scores, weights=weights)) < 2e-6
        expected = reference_gradient(labels, scores, weights=weights)
        np.testing.assert_allclose(gradient, expected, atol=2e-5)


def test_small_sums_keep_their_relative_precision():
    """Well ranked: the sum is 1e-9 of the 1 beside it, and neither value nor gradient is 0."""
    labels, scores = np.array([0.0, 1.0]), np.array([-0.5, 0.5], "float32")
    value, gradient = loss_and_gradient(labels, scores)
    assert value == pytest.approx(np.exp(-20.0), rel=2e-6)
    np.testing.assert_allclose(gradient, 20 * np.exp(-20.0) * np.array([1, -1]), rtol=2e-6)


def test_low_rows_before_high_ones_do_not_underflow():
    """The pair that counts is 2000 below the largest score in the exponents."""
    labels = np.array([0.0, 1.0, 2.0, 3.0])
    scores = np.array([-50.0, -50.5, 50.0, 49.8], "float32")
    value, gradient = loss_and_gradient(labels, scores)
    assert value == pytest.approx(10.0 + np.log(1 + np.exp(-6.0)), rel=1e-5)  # and e^4 beside e^10
    assert relative_error(gradient, reference_gradient(labels, scores)) < 1e-5


def test_infinite_scores_that_cost_nothing_are_finite():
    labels = np.array([0.0, 1.0, 2.0])
    value, gradient = loss_and_gradient(labels, [-np.inf, 0.5, np.inf])
    assert value == 0
    assert not gradient.any()
    value, gradient = loss_and_gradient(labels, [np.inf, 0.5, 0.0])
    assert 0.9e38 < value < np.inf
    assert np.isfinite(gradient).all()
    value, gradient = loss_and_gradient(labels, [3e38, 3e38, -3e38])  # 20 times it is infinite
    assert 1.9e38 < value < np.inf
    np.testing.assert_allclose(gradient, [10.0, 10.0, -20.0])
    value, gradient = loss_and_gradient(labels, [3e38, 3e38, 3e38])
    assert value == pytest.approx(np.log(4), rel=1e-6)
    np.testing.assert_allclose(gradient, [10.0, 0.0, -10.0], atol=1e-6)


@pytest.mark.parametrize("size", [1, 7])
def test_equal_labels_are_exactly_zero(size):
    scores = np.linspace(-1e3, 1e3, size)
    for label in (0, 3.5, -np.inf):
        value, gradient = loss_and_gradient(np.full(size, label), scores)
        assert value == 0
        assert not gradient.any()


def test_order_of_the_rows_changes_nothing():
    labels, scores, weights = case(33)
    function = compiled_loss()
    value, (_, gradient, _) = function(labels, scores, weights)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(33)
        other, (_, of_other, _) = function(labels[order], scores[order], weights[order])
        assert relative_error(other, value) < 1e-6
        assert relative_error(of_other, gradient[order]) < 2e-6


def value_of(labels, scores):
    """The loss without weights; labels and scores keep their dtypes."""
    value, _ = differentiated(lambda s: ranking_logsumexp(labels, s))(scores)
    return value


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int64", "float64", "float16", "bool"])
def test_labels_of_any_dtype_by_their_order_alone(dtype):
    labels = np.array([0, 1, 1, 0, 1, 0])
    scores = np.array([0.3, 0.1, -0.4, 0.2, 0.9, -0.7], "float32")
    expected, _ = loss_and_gradient(labels * 7 - 3, scores)
    assert value_of(labels.astype(dtype), scores) == pytest.approx(float(expected), rel=1e-6)


def test_integers_that_float32_cannot_tell_apart_are_labels():
    labels = np.array([2**24, 2**24 + 1], "int32")
    assert value_of(labels, np.array([0.5, 0.0], "float32")) == pytest.approx(10.0, rel=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_scores_of_half_precision(dtype):
    labels, scores, _ = case(20)
    half = ops.cast(scores, dtype)
    value = value_of(labels, half)
    assert value.dtype == np.float32
    assert relative_error(value, reference(labels, to_numpy(ops.cast(half, "float32")))) < 2e-6


@pytest.mark.parametrize("compiled", [False, True])
def test_rows_without_weight_or_label_are_absent(compiled):
    labels, scores, weights = case(12)
    value, gradient = loss_and_gradient(labels, scores, weights)
    function = compiled_loss(compiled)
    absent = [0, 6, 14]

    def among(array, number):
        return np.insert(array, [0, 5, 12], number).astype("float32")

    for score in (0.7, 1e30, np.inf, np.nan):
        # The largest weight is that of the rows present: 1e38 squared would be infinite.
        for label, weight in ((99, 0), (-99, 0), (np.nan, 1), (np.nan, 1e38)):
            rows = among(labels, label), among(scores, score), among(weights, weight)
            other, (_, of_other, _) = function(*rows)
            assert relative_error(other, value) < 1e-6
            assert relative_error(np.delete(of_other, absent), gradient) < 2e-6
            assert not of_other[absent].any()


def test_all_rows_absent_is_zero():
    for labels, weights in (([0.0, 1.0], [0.0, 0.0]), ([np.nan, np.nan], [1.0, 1.0])):
        value, gradient = loss_and_gradient(labels, [3.0, np.nan], np.array(weights, "float32"))
        assert value == 0
        assert not gradient.any()


@pytest.mark.parametrize("compiled", [False, True])
def test_nan_scores_show(compiled):
    function = compiled_loss(compiled)
    for place in (0, 3, 5):
        for labels in (np.arange(6.0), np.ones(6)):
            scores = np.linspace(-1, 1, 6)
            scores[place] = np.nan
            rows = (x.astype("float32") for x in (labels, scores, np.ones(6)))
            value, (_, gradient, _) = function(*rows)
            assert np.isnan(value)
            assert np.isnan(gradient[place])


@pytest.mark.parametrize("weight", [-1.0, np.nan])
def test_weights_without_meaning_show(weight):
    value, _ = loss_and_gradient(np.arange(3.0), np.zeros(3), np.array([1, weight, 1], "float32"))
    assert np.isnan(value)


@pytest.mark.parametrize("factor", [1e-15, 1e30])
def test_weights_of_any_size(factor):
    labels, scores, weights = case(30)
    weights = (factor * weights).astype("float32")
    value, gradient = loss_and_gradient(labels, scores, weights)
    assert relative_error(value, reference(labels, scores, weights=weights)) < 1e-5
    assert relative_error(gradient, reference_gradient(labels, scores, weights=weights)) < 1e-5


def test_weights_are_counts_of_rows():
    labels, scores, _ = case(10)
    counts = np.array([1, 2, 3, 1, 2, 3, 1, 2, 3, 1])
    value, gradient = loss_and_gradient(labels, scores, counts)
    repeated, of_repeated = loss_and_gradient(labels.repeat(counts), scores.repeat(counts))
    assert relative_error(value, repeated) < 1e-6
    assert relative_error(gradient, np.add.reduceat(of_repeated, np.cumsum(counts) - counts)) < 2e-6


@pytest.mark.slow
@pytest.mark.skipif(not ON_TENSORFLOW, reason="JAX knows every shape when it traces")
@pytest.mark.parametrize("compiled", [False, True])
def test_unknown_batch_size(compiled):
    import tensorflow as tf

    spec = tf.TensorSpec([None], "float32")

    @tf.function(input_signature=[spec] * 3, jit_compile=compiled)
    def function(labels, scores, weights):
        with tf.GradientTape() as tape:
            tape.watch(scores)
            value = ranking_logsumexp(labels, scores, pair_weight=weights)
        return value, tape.gradient(value, scores)

    for size in (1, 2, 5, 64):
        labels, scores, weights = case(size)
        value, gradient = function(labels, scores, weights)
        assert relative_error(value.numpy(), reference(labels, scores, weights=weights)) < 2e-6
        expected = reference_gradient(labels, scores, weights=weights)
        assert relative_error(gradient.numpy(), expected) < 5e-6
    assert function.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("compiled", [False, True])
def test_eager_and_compiled_are_the_same(compiled):
    labels, scores, weights = case(100, "random")
    value, (_, gradient, _) = compiled_loss(compiled)(labels, scores, weights)
    assert relative_error(value, reference(labels, scores, weights=weights)) < 2e-6
    assert relative_error(gradient, reference_gradient(labels, scores, weights=weights)) < 5e-6


def test_the_gradient_is_multiplied_by_what_comes_from_above():
    labels, scores, _ = case(8)
    _, gradient = loss_and_gradient(labels, scores)
    _, (tripled,) = differentiated(lambda s: 3.0 * ranking_logsumexp(labels, s))(scores)
    np.testing.assert_allclose(tripled, 3 * gradient, rtol=1e-6)


def test_bad_arguments_raise():
    ones = np.ones(3, "float32")
    with pytest.raises(ValueError, match=r"one number for each row.*Received: y.shape=\(2,\)"):
        ranking_logsumexp(ones[:2], ones)
    with pytest.raises(ValueError, match=r"pair_weight.shape=\(1,\)"):
        ranking_logsumexp(ones, ones, pair_weight=ones[:1])
    with pytest.raises(ValueError, match=r"s.shape=\(3, 1\)"):
        ranking_logsumexp(ones, ones[:, None])
    for temperature in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="temperature above 0.*Received: temperature="):
            ranking_logsumexp(ones, ones, temperature)
