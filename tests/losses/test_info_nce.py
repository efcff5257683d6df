import keras
import numpy as np
import pytest
from gradients import numerical_gradient, relative_error, value_and_gradient
from keras import ops

from keras_ext.losses.info_nce import InfoNCE, info_nce

GROUPS = np.array([7, -1, 7, -1, 3], "int32")


def texts(batch=5, hard=2, width=4, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(batch, 2 + hard, width))
    return vectors.astype("float32")


def gaps(groups, vectors, temperature=0.5, score="cosine", symmetric=False):
    """The definition, in loops and float64: a list of a list for each anchor, by direction."""
    vectors = np.asarray(vectors, "float64")
    if score == "cosine":
        vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    anchors, positives, batch = vectors[:, 0], vectors[:, 1], range(len(vectors))
    directions = [(anchors, positives, True)] + [(positives, anchors, False)] * symmetric
    result = []
    for left, right, with_hard in directions:
        result.append([])
        for i in batch:
            others = [j for j in batch if j != i and groups[j] != -2]
            negatives = [right[j] for j in others if groups[j] != groups[i] or groups[j] == -1]
            if with_hard:
                negatives += [x for j in [i, *others] for x in vectors[j, 2:]]
            scores = [left[i] @ x / temperature for x in negatives if groups[i] != -2]
            gap = np.logaddexp.reduce(scores) - left[i] @ right[i] / temperature if scores else None
            result[-1].append(gap)
    return result


def reference(groups, vectors, **options):
    losses = [
        [0.0 if gap is None else np.logaddexp(0.0, gap) for gap in direction]
        for direction in gaps(groups, vectors, **options)
    ]
    return np.mean(losses, axis=0)


def loss_and_gradient(groups, vectors, compiled=False, function=info_nce, **options):
    options = {"temperature": 0.5, **options}
    value, (gradient,) = value_and_gradient(
        lambda x: function(groups, x, **options), vectors, compiled=compiled
    )
    return value, gradient


@pytest.mark.parametrize("hard", [0, 2])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("score", ["cosine", "dot"])
def test_value_and_gradient_are_those_of_the_definition(score, symmetric, hard):
    options = {"score": score, "symmetric": symmetric}
    vectors = texts(hard=hard)
    value, gradient = loss_and_gradient(GROUPS, vectors, **options)
    assert (value.dtype, value.shape) == (np.float32, (5,))
    np.testing.assert_allclose(value, reference(GROUPS, vectors, **options), rtol=1e-5)
    expected = numerical_gradient(lambda x: reference(GROUPS, x, **options), vectors)
    assert relative_error(gradient, expected) < 1e-5


def test_xla_gives_the_same():
    value, gradient = loss_and_gradient(GROUPS, texts(), symmetric=True)
    compiled, compiled_gradient = loss_and_gradient(GROUPS, texts(), True, symmetric=True)
    np.testing.assert_allclose(compiled, value, rtol=1e-5)
    assert relative_error(compiled_gradient, gradient) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_both_gradients_are_exact_however_far_the_positive_is_above(compiled):
    """With an anchor of 1, the vectors of width 1 are the scores."""
    for gap in (1, 8, 16, 20, 40, 80):
        scores = np.array([gap + 0.5, 0.25, -0.5, 0.5], "float64")
        vectors = np.array([1.0, *scores], "float32").reshape(1, -1, 1)
        _, gradient = loss_and_gradient(
            np.array([-1]), vectors, compiled, temperature=1.0, score="dot"
        )
        negative = np.exp(scores[1:] - scores[0])
        shares = negative / (1 + negative.sum())
        np.testing.assert_allclose(gradient[0, 1, 0], -shares.sum(), rtol=5e-6)
        np.testing.assert_allclose(gradient[0, 2:, 0], shares, rtol=5e-6)


def test_cross_entropy_of_keras_loses_the_gradient_of_the_positive():
    """What the form of the loss is for: this fails once Keras is as exact."""
    scores = np.array([[20.5, 0.25, -0.5, 0.5]], "float32")
    _, (gradient,) = value_and_gradient(
        lambda s: keras.losses.sparse_categorical_crossentropy(np.array([0]), s, from_logits=True),
        scores,
    )
    assert gradient[0, 0] == 0.0
    assert (gradient[0, 1:] > 0).all()


def test_rows_of_a_group_are_no_negatives_of_each_other_but_their_hard_negatives_are():
    vectors = texts(batch=2, hard=1)
    value, gradient = loss_and_gradient(np.array([4, 4]), vectors)
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    anchor, positive, hard = unit[:, 0], unit[:, 1], unit[:, 2]
    negative = np.logaddexp.reduce(anchor @ hard.T / 0.5, axis=1)
    gap = negative - np.sum(anchor * positive, -1) / 0.5
    np.testing.assert_allclose(value, np.logaddexp(0, gap), rtol=1e-5)
    assert gradient[:, 2].any(axis=-1).all()


def test_one_group_or_a_batch_of_one_gives_zero():
    for groups, batch in ((np.array([4, 4, 4]), 3), (np.array([-1]), 1), (None, 1)):
        vectors = texts(batch=batch, hard=0)
        for symmetric in (False, True):
            value, gradient = loss_and_gradient(groups, vectors, symmetric=symmetric)
            assert not value.any()
            assert not gradient.any()


def test_symmetric_is_the_mean_of_both_directions():
    vectors = texts(hard=0)
    forward, _ = loss_and_gradient(GROUPS, vectors)
    backward, _ = loss_and_gradient(GROUPS, vectors[:, ::-1].copy())
    both, _ = loss_and_gradient(GROUPS, vectors, symmetric=True)
    np.testing.assert_allclose(both, (forward + backward) / 2, rtol=1e-6)


def test_vectors_of_zeros_and_an_anchor_that_is_the_positive():
    vectors = texts()
    vectors[0] = 0.0
    vectors[1, 1] = vectors[1, 0]
    vectors[2, 2] = 0.0
    value, gradient = loss_and_gradient(GROUPS, vectors, temperature=0.01)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    assert value[0] == pytest.approx(np.log(4 - 1 + 5 * 2 + 1), rel=1e-6)  # all scores are 0


@pytest.mark.parametrize("batch", [1, 3])
def test_nan_shows(batch):
    for place in (0, 1):
        vectors = texts(batch=batch, hard=0)
        vectors[0, place, 1] = np.nan
        value, _ = loss_and_gradient(None, vectors)
        assert np.isnan(value[0])


def test_half_precision_comes_out_in_float32():
    vectors = texts().astype("float16")
    value, gradient = loss_and_gradient(GROUPS, vectors, temperature=0.01)
    np.testing.assert_allclose(value, reference(GROUPS, vectors, temperature=0.01), rtol=1e-4)
    assert value.dtype == np.float32
    assert np.isfinite(gradient).all()


def weighted_gradient(groups, vectors, weights):
    """The loss as in `fit`, and the gradient of the vectors."""
    loss = InfoNCE(0.5, symmetric=True)
    value, (gradient,) = value_and_gradient(lambda x: loss(groups, x, weights), vectors)
    return value, gradient


@pytest.mark.parametrize("column", [False, True])
def test_rows_of_weight_zero_are_absent(column):
    vectors, weights = texts(), np.array([1.0, 0.0, 0.5, 2.0, 0.0], "float32")
    kept = weights > 0
    expected, expected_gradient = weighted_gradient(GROUPS[kept], vectors[kept], weights[kept])
    losses = reference(GROUPS[kept], vectors[kept], symmetric=True)
    assert expected == pytest.approx(np.average(losses, weights=weights[kept]), rel=1e-5)
    vectors[1], vectors[4, 0] = np.nan, 1e30
    groups = GROUPS[:, None] if column else GROUPS
    value, gradient = weighted_gradient(groups, vectors, weights[:, None] if column else weights)
    assert value == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradient[kept], expected_gradient, atol=1e-6)
    assert not gradient[~kept].any()


def test_all_rows_absent_give_zero():
    value, gradient = weighted_gradient(GROUPS, texts(), np.zeros(5, "float32"))
    assert value == 0
    assert not gradient.any()


def test_large_ids_stay_apart():
    """In float32, to which Keras casts labels, the first two are one number."""
    groups = np.array([2**24, 2**24 + 1, 2**24, -5, -1], "int32")
    loss = InfoNCE(0.5, reduction="none")
    value = ops.convert_to_numpy(loss(groups, texts()))
    np.testing.assert_allclose(value, reference(groups, texts()), rtol=1e-5)
    merged = reference(groups.astype("float32"), texts())
    assert abs(value - merged).max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_counts_each_row_once_with_and_without_labels(jit_compile):
    vectors = texts(batch=6)
    model = keras.Sequential([keras.Input((4, 4)), keras.layers.Identity()])
    model.compile(loss=InfoNCE(0.5), jit_compile=jit_compile)
    none = np.full(6, -1)
    expected = reference(none, vectors).mean()
    assert model.evaluate(vectors, verbose=0) == pytest.approx(expected, rel=1e-5)
    groups = np.array([[0], [1], [0], [-1], [-1], [9]])
    weights = np.array([1, 1, 1, 1, 0, 0])
    result = model.evaluate(vectors, groups, sample_weight=weights, verbose=0)
    expected = reference(groups[:4, 0], vectors[:4]).mean()
    assert result == pytest.approx(expected, rel=1e-5)


def test_training_brings_pairs_together():
    """The second text of a pair is a rotation of the first, which a linear map undoes."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(32, 4))
    both = np.stack([np.pad(first, [(0, 0), (0, 4)]), np.pad(first, [(0, 0), (4, 0)])], axis=1)
    model = keras.Sequential([keras.Input((2, 8)), keras.layers.Dense(4, use_bias=False)])
    optimizer = keras.optimizers.Adam(0.05)
    model.compile(optimizer, InfoNCE(symmetric=True), jit_compile=True)
    history = model.fit(both.astype("float32"), epochs=12, batch_size=8, verbose=0)
    assert history.history["loss"][-1] < 0.4 < 1.0 < history.history["loss"][0]


def test_bad_arguments_raise():
    for shape in ((3, 4), (3, 1, 4), (3, 2, 4, 1)):
        with pytest.raises(ValueError, match="anchor, positive.*Received: y_pred.shape"):
            info_nce(np.zeros(3, "int32"), np.zeros(shape, "float32"))
    with pytest.raises(ValueError, match="Received: y_true.shape"):
        info_nce(np.zeros((3, 2), "int32"), np.zeros((3, 2, 4), "float32"))
    with pytest.raises(ValueError, match="'cosine' or 'dot'.*Received: score='angle'"):
        info_nce(None, np.zeros((3, 2, 4), "float32"), score="angle")
    with pytest.raises(ValueError, match="Received: score=None"):
        InfoNCE(score=None)
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="Received: temperature="):
            InfoNCE(temperature)
