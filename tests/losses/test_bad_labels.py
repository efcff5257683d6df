"""Labels that are no integers where integers are meant: loud, and the same, on every backend."""

import functools

import keras
import numpy as np
import pytest
from gradients import differentiated, value_and_gradient
from keras import ops

from keras_ext import losses
from keras_ext.metrics import SpanF1

BAD = [np.nan, 0.5, np.inf, -np.inf, -1.5]
RNG = np.random.default_rng(0)
SPANS = np.array([[[0, 1, 3], [1, 2, 2]], [[1, 0, 3], [-1, -1, -1]]], "float32")
DENSE = RNG.normal(size=(2, 2, 4, 4)).astype("float32")
FACTORS = RNG.normal(size=(2, 4, 2 * (3 + 2))).astype("float32")
GROUPS = np.array([[0, 5], [7, -1], [-1, 0]], "float32")
TEXTS = RNG.normal(size=(3, 3, 4)).astype("float32")
CLASSES = np.array([[1, 3, -1], [0, -1, -1]], "float32")
# The loss, its function of labels and scores, good labels, scores.
CASES = {
    "sparse": (
        losses.SparseMultilabelCategoricalCrossentropy,
        losses.sparse_multilabel_categorical_crossentropy,
        CLASSES,
        RNG.normal(size=(2, 5)).astype("float32"),
    ),
    "spans": (
        losses.GlobalPointerCrossentropy,
        losses.global_pointer_crossentropy,
        SPANS,
        DENSE,
    ),
    "factored": (
        lambda **kwargs: losses.FactoredGlobalPointerCrossentropy(2, 3, **kwargs),
        lambda *pair: losses.factored_global_pointer_crossentropy(*pair, 2, 3),
        SPANS,
        FACTORS,
    ),
    "info_nce": (losses.InfoNCE, losses.info_nce, GROUPS, TEXTS),
    "flat_nce": (losses.FlatNCE, losses.flat_nce, GROUPS, TEXTS),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def spoilt(labels, bad):
    """Labels of which one of the first sample is bad."""
    labels = labels.copy()
    labels[0].flat[-1] = bad
    return labels


@functools.cache
def loss_and_gradient(cls, compiled):
    """Takes scores and labels; is compiled once for all labels."""
    loss = cls(reduction="none")
    return differentiated(lambda scores, labels: loss(labels, scores), compiled)


@pytest.mark.slow
@cases
@pytest.mark.parametrize("bad", BAD)
def test_the_loss_of_such_labels_is_nan_and_so_is_its_gradient(case, bad):
    cls, _, labels, scores = case
    good, _ = loss_and_gradient(cls, False)(scores, labels)
    for compiled in {False, keras.backend.backend() == "tensorflow"}:  # JAX always compiles
        value, (gradient, _) = loss_and_gradient(cls, compiled)(scores, spoilt(labels, bad))
        assert np.isnan(value[0])
        assert np.isfinite(value[1:]).all()
        assert np.isnan(gradient[0]).any()
        if cls not in (losses.InfoNCE, losses.FlatNCE):  # rows of those see each other
            np.testing.assert_allclose(value[1:], good[1:], rtol=1e-5)


@pytest.mark.slow
@cases
def test_training_on_them_is_not_silent(case):
    cls, _, labels, scores = case
    dense = keras.layers.Dense(scores.shape[-1])
    model = keras.Sequential([keras.Input(scores.shape[1:]), dense])
    model.compile(loss=cls())
    assert np.isfinite(model.fit(scores, labels, verbose=0).history["loss"])
    assert np.isnan(model.fit(scores, spoilt(labels, np.nan), verbose=0).history["loss"])


@pytest.mark.slow
@cases
@pytest.mark.parametrize("bad", BAD)
def test_arrays_of_them_are_refused(case, bad):
    _, function, labels, scores = case
    assert np.isfinite(ops.convert_to_numpy(function(labels, scores))).all()
    place = rf"1 that are none, the first is y_true\[0, .*\]={bad}"
    with pytest.raises(ValueError, match=f"These labels are integers. Received: {place}"):
        function(spoilt(labels, bad), scores)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["sparse", "spans", "factored"])
@pytest.mark.parametrize("dtype", ["int64", "uint64", "uint32", "float64"])
def test_large_integers_are_out_of_range_and_not_another_label(case, dtype):
    _, function, labels, scores = CASES[case]
    labels = np.maximum(labels, 0)
    expected = function(spoilt(labels, -1).astype("int32"), scores)
    for far in (2**32, 2**32 + 1, 2**31, 2**40 + 2, -(2**32), -(2**40)):
        if "uint" in dtype and not 0 <= far < 2 ** int(dtype[4:]):
            continue
        with_far = labels.astype(dtype)
        with_far[0].flat[-1] = far
        given = [with_far]
        if keras.backend.backend() == "tensorflow":  # JAX has no tensors of 64 bits
            given.append(ops.convert_to_tensor(with_far))
        for each in given:
            found = ops.convert_to_numpy(function(each, scores))
            np.testing.assert_allclose(found, ops.convert_to_numpy(expected), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("factored", [False, True])
def test_the_f1_of_such_spans_is_nan(bad, factored):
    metric = SpanF1(2, 3, factored=True) if factored else SpanF1(2)
    scores = FACTORS if factored else DENSE
    metric.update_state(ops.convert_to_tensor(spoilt(SPANS, bad)), scores)
    metric.update_state(SPANS, scores)
    assert np.isnan(float(metric.result()))
    with pytest.raises(ValueError, match="These labels are integers"):
        metric.update_state(spoilt(SPANS, bad), scores)
    metric.reset_state()
    metric.update_state(SPANS, scores)
    assert np.isfinite(float(metric.result()))


@pytest.mark.parametrize("loss", ["multilabel", "pointer"])
def test_nan_among_dense_labels_shows(loss):
    labels = RNG.integers(0, 2, DENSE.shape).astype("float32")
    loss = {
        "multilabel": losses.MultilabelCategoricalCrossentropy,
        "pointer": losses.GlobalPointerCrossentropy,
    }[loss](reduction="none")
    value, (gradient,) = value_and_gradient(lambda s: loss(spoilt(labels, np.nan), s), DENSE)
    value = value.reshape(2, -1)
    assert np.isnan(value[0]).any()
    assert np.isfinite(value[1]).all()
    assert np.isnan(gradient[0]).any()


def test_labels_of_a_row_that_is_absent_are_not_looked_at():
    labels, weights = spoilt(GROUPS, np.nan), np.array([0.0, 1.0, 1.0])
    for cls in (losses.InfoNCE, losses.FlatNCE):
        assert np.isfinite(float(cls()(labels, TEXTS, sample_weight=weights)))


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32"])
def test_the_order_of_large_labels_is_kept(dtype):
    start = 2**24 if dtype != "int64" or keras.backend.backend() == "jax" else 2**53
    labels = np.array([start + 1, start, start + 2], dtype)
    vectors = RNG.normal(size=(3, 2, 4)).astype("float32")
    loss = losses.CoSENT()
    expected = float(loss(np.array([1.0, 0.0, 2.0]), vectors))
    assert float(loss(labels, vectors)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="other backends have 64 bits")
def test_labels_that_jax_cannot_hold_are_refused():
    far = np.array([0, 2**40])
    for function in (
        lambda: losses.ranking_logsumexp(far, np.zeros(2, "float32")),
        lambda: losses.CoSENT()(far, np.zeros((2, 2, 4), "float32")),
        lambda: losses.info_nce(far, np.zeros((2, 2, 4), "float32")),
    ):
        with pytest.raises(ValueError, match="jax holds labels as int32.*Received: 0 to 1099511"):
            function()
