import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from keras_ext.metrics.correlation import pearson, spearman
from keras_ext.metrics.spearman_correlation import SpearmanCorrelation
from keras_ext.ops import angle_scores, cosine_scores, dot_scores


@keras.saving.register_keras_serializable(package="test_spearman")
def minus_distance(first, second):
    return -ops.sum(ops.square(first - second), axis=-1)


def after(metric, *batches):
    """The result after batches of (y_true, y_pred) or (y_true, y_pred, sample_weight)."""
    metric.reset_state()
    for batch in batches:
        metric.update_state(*batch)
    return float(metric.result())


def rows(n, levels=6, digits=1):
    """Labels and scores with ties in both."""
    rng = np.random.default_rng(n)
    labels = rng.integers(0, levels, n).astype("float32")
    return labels, (labels + 2 * rng.normal(size=n)).round(digits).astype("float32")


@pytest.mark.parametrize(("n", "levels", "digits"), [(2, 9, 9), (64, 6, 0), (64, 2, 1), (64, 6, 7)])
def test_equals_scipy_with_ties_in_one_batch_and_in_several(n, levels, digits):
    labels, scores = rows(n, levels, digits)
    expected = stats.spearmanr(labels, scores).statistic
    assert spearman(labels, scores) == pytest.approx(expected, abs=1e-12)
    metric = SpearmanCorrelation(capacity=64)
    assert after(metric, (labels, scores)) == pytest.approx(expected, abs=1e-6)
    step = max(n // 2, 1)
    batches = [(labels[i : i + step, None], scores[i : i + step, None]) for i in range(0, n, step)]
    assert after(metric, *batches) == pytest.approx(expected, abs=1e-6)
    assert abs(expected) > 0.1


def test_is_as_exact_where_the_buffers_are_full():
    labels, scores = rows(16384, 6, 7)
    expected = stats.spearmanr(labels, scores).statistic
    assert after(SpearmanCorrelation(), (labels, scores)) == pytest.approx(expected, abs=1e-6)


def test_only_the_order_matters():
    labels, scores = rows(64)
    metric = SpearmanCorrelation(capacity=64)
    value = after(metric, (labels, scores))
    assert after(metric, (np.exp(labels), scores**3)) == value
    assert after(metric, (labels[::-1], scores[::-1])) == pytest.approx(value, abs=1e-6)
    assert after(metric, (scores, labels)) == pytest.approx(value, abs=1e-6)
    assert after(metric, (-labels, scores)) == pytest.approx(-value, abs=1e-6)
    assert after(metric, (labels, labels)) == pytest.approx(1.0, abs=1e-6)


def test_infinite_scores_and_both_zeros_have_ranks():
    labels = np.array([0.0, 1.0, 2.0, 3.0, 3.0], "float32")
    scores = np.array([-np.inf, 0.0, -0.0, np.inf, np.inf], "float32")
    expected = stats.spearmanr(labels, scores).statistic
    assert after(SpearmanCorrelation(capacity=64), (labels, scores)) == pytest.approx(expected)


def test_rows_of_weight_zero_and_without_label_are_as_absent():
    labels, scores = rows(64)
    metric = SpearmanCorrelation(capacity=64)
    weight = np.where(np.arange(64) % 4 == 1, 0.0, np.arange(64) / 9.0 + 0.1)
    labels[2::4], scores[1::4] = np.nan, np.nan
    kept = (weight > 0) & ~np.isnan(labels)
    expected = stats.spearmanr(labels[kept], scores[kept]).statistic
    batch = (labels, scores, weight[:, None])
    assert kept.sum() == 32
    assert after(metric, batch) == pytest.approx(expected, abs=1e-6)
    assert after(metric, batch, (labels, scores, np.zeros((64, 1)))) == after(metric, batch)
    # Rows that are left out take no room.
    twice = stats.spearmanr(np.tile(labels[kept], 2), np.tile(scores[kept], 2)).statistic
    assert after(metric, batch, batch) == pytest.approx(twice, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "function"),
    [("cosine", cosine_scores), ("dot", dot_scores), ("angle", angle_scores)],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pairs_of_vectors_are_scored(name, function, dtype):
    rng = np.random.default_rng(0)
    vectors = ops.cast(rng.normal(size=(64, 2, 6)), dtype)
    labels = rng.integers(0, 4, 64)
    expected = spearman(labels, np.array(function(vectors[:, 0], vectors[:, 1])))
    for score in (name, function):
        metric = SpearmanCorrelation(score, capacity=64)
        assert after(metric, (labels, vectors)) == pytest.approx(expected, abs=1e-6)


def test_a_result_that_is_not_known_is_nan():
    metric = SpearmanCorrelation(capacity=64)
    labels, scores = rows(64, 6, 7)
    assert np.isnan(after(metric))
    assert np.isnan(after(metric, (labels[:1], scores[:1])))
    assert np.isnan(after(metric, (np.ones(64), scores)))
    assert np.isnan(after(metric, (labels, np.full(64, 0.7))))
    assert np.isnan(after(metric, (labels, np.where(np.arange(64) == 3, np.nan, scores))))
    assert np.isnan(after(metric, (labels, scores), (labels[:1], scores[:1])))
    assert np.isnan(after(metric, (np.tile(labels, 2), np.tile(scores, 2))))
    assert not np.isnan(after(metric, (labels, scores)))


@pytest.mark.slow
def test_fit_and_evaluate_give_the_correlation_of_the_whole_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(26, 2, 3)).astype("float32")
    y = rng.integers(0, 3, 26).astype("float32")
    model = keras.Sequential([keras.Input((2, 3)), keras.layers.Dense(4)])
    metric = SpearmanCorrelation(capacity=64)
    model.compile("sgd", lambda y_true, y_pred: ops.mean(y_pred**2), metrics=[metric])
    history = model.fit(x, y, batch_size=8, epochs=2, validation_data=(x, y), verbose=0).history
    vectors = model.predict(x, batch_size=8, verbose=0)
    expected = spearman(y, np.array(cosine_scores(vectors[:, 0], vectors[:, 1])))
    assert history["val_spearman"][-1] == pytest.approx(expected, abs=1e-6)
    assert model.evaluate(x, y, batch_size=5, verbose=0, return_dict=True)[
        "spearman"
    ] == pytest.approx(expected, abs=1e-6)
    assert np.isfinite(history["spearman"]).all() and abs(expected) > 1e-3


def test_a_registered_function_as_score_is_saved():
    stored = keras.saving.serialize_keras_object(SpearmanCorrelation(minus_distance, name="other"))
    again = keras.saving.deserialize_keras_object(stored)
    assert again.score is minus_distance and again.name == "other"
    assert keras.saving.serialize_keras_object(again) == stored


@pytest.mark.parametrize("shape", [(4, 2), (4, 3, 5), (4, 1, 5), (4, 2, 5, 1), ()])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="Expected scores of the shape.*Received: y_pred.shape="):
        SpearmanCorrelation().update_state(np.zeros(4), np.zeros(shape))


@pytest.mark.parametrize("arguments", [{"score": "sine"}, {"capacity": 0}, {"capacity": 2.0}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="Received: "):
        SpearmanCorrelation(**arguments)


def test_pearson_equals_scipy_and_sees_the_distances():
    labels, scores = rows(50)
    assert pearson(labels, scores) == stats.pearsonr(labels.astype(float), scores).statistic
    assert pearson(labels, 3 * labels - 2) == pytest.approx(1.0)
    assert pearson(labels, np.exp(labels)) < 0.9 < spearman(labels, np.exp(labels))


@pytest.mark.parametrize("function", [spearman, pearson])
def test_what_has_no_correlation_gives_nan_without_a_warning(function):
    for labels, scores in (
        ([], []), ([1], [2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5]),
        ([1, 2, 3], [1, np.nan, 2]), ([np.nan, 2, 3], [1, 3, 2]), ([0, 1, 2], [0.1] * 3),
    ):  # fmt: skip
        value = function(labels, scores)
        assert isinstance(value, float) and np.isnan(value)
    for labels, scores in (([1, 2], [1, 2, 3]), ([[1, 2]], [[1, 2]]), (1.0, 2.0)):
        with pytest.raises(ValueError, match=r"Received: labels\.shape="):
            function(labels, scores)
