import functools

import keras
import numpy as np
import pytest
from gradients import differentiated, relative_error
from keras import ops

from keras_ext.losses.cosent import CoSENT
from keras_ext.losses.ranking import ranking_logsumexp

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
PAIRS, WIDTH = 6, 4
LABELS = np.array([0.0, 2.5, 5.0, 2.5, 1.0, 4.0], "float32")


@keras.saving.register_keras_serializable(package="keras_ext_tests")
def negative_distance(first, second):
    return -ops.sqrt(ops.sum(ops.square(first - second), axis=-1))


def not_registered(first, second):
    return ops.sum(first, axis=-1) - ops.sum(second, axis=-1)


def vectors_of(seed=0, pairs=PAIRS):
    return np.random.default_rng(seed).normal(size=(pairs, 2, WIDTH)).astype("float32")


def cosines(vectors):
    first, second = vectors[:, 0].astype("float64"), vectors[:, 1].astype("float64")
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(1) / norms


def angles(vectors):
    """AnglE's score from a quotient of complex numbers, each divided by its length."""
    first, second = (x[:, : WIDTH // 2] + 1j * x[:, WIDTH // 2 :] for x in vectors.swapaxes(0, 1))
    quotient = first * second.conj() / (np.abs(second) ** 2).sum(1, keepdims=True)
    lengths = [np.sqrt((np.abs(x) ** 2).sum(1)) for x in (first, second)]
    quotient = quotient.sum(1) / (lengths[0] / lengths[1])
    return np.abs(quotient.real + quotient.imag)


def dots(vectors):
    return (vectors[:, 0].astype("float64") * vectors[:, 1]).sum(1)


def distances(vectors):
    return -np.linalg.norm(vectors[:, 0].astype("float64") - vectors[:, 1], axis=1)


def double_sum(labels, scores, scale=20.0, weights=None):
    """The loss as its formula says, one pair of pairs at a time."""
    weights = np.ones(len(labels)) if weights is None else weights
    total = 1.0
    for a, b in np.ndindex(len(labels), len(labels)):
        if labels[a] < labels[b]:
            total += weights[a] * weights[b] * np.exp(scale * (scores[a] - scores[b]))
    return np.log(total)


@functools.cache
def compiled_loss(**options):
    """A function of labels, weights and vectors: the value, and the gradient of the vectors."""
    loss = CoSENT(**options)

    def with_weights(labels, weights, vectors):
        return loss(labels, vectors, sample_weight=weights)

    function = differentiated(with_weights)

    def value_and_gradient(labels, vectors, weights=None):
        weights = np.ones(len(labels), "float32") if weights is None else weights
        value, gradients = function(labels.astype("float32"), weights.astype("float32"), vectors)
        return value, gradients[2]

    return value_and_gradient


@pytest.mark.slow
@pytest.mark.parametrize(
    ("score", "expected"),
    [("cosine", cosines), ("angle", angles), ("dot", dots), (negative_distance, distances)],
)
def test_equals_the_formula_in_both_layouts(score, expected):
    vectors = vectors_of()
    for scale in (20.0, 1.5):
        truth = double_sum(LABELS, expected(vectors), scale)
        value, gradient = compiled_loss(score=score, temperature=1 / scale)(LABELS, vectors)
        assert (value.dtype, value.shape) == (np.float32, ())
        assert relative_error(value, truth) < 2e-6
        rows = vectors.reshape(-1, WIDTH)
        interleaved = compiled_loss(layout="interleaved", score=score, temperature=1 / scale)
        value, of_rows = interleaved(LABELS.repeat(2), rows)
        assert relative_error(value, truth) < 2e-6
        assert relative_error(of_rows.reshape(gradient.shape), gradient) < 1e-6


def test_columns_of_labels_and_weights_are_taken():
    vectors, weights = vectors_of(), np.arange(6.0)
    pairs, rows = CoSENT(), CoSENT(layout="interleaved")
    flat = float(pairs(LABELS, vectors, sample_weight=weights))
    assert float(pairs(LABELS[:, None], vectors, sample_weight=weights[:, None])) == flat
    doubled, weights = LABELS.repeat(2), weights.repeat(2)
    vectors = vectors.reshape(-1, WIDTH)
    assert float(rows(doubled, vectors, sample_weight=weights)) == flat
    assert float(rows(doubled[:, None], vectors, sample_weight=weights[:, None])) == flat


def test_only_the_order_of_the_labels_counts():
    """Grades, and the classes of natural language inference."""
    vectors, function = vectors_of(), compiled_loss(layout="pairs")
    expected, _ = function(LABELS, vectors)
    value, _ = function(np.array([-9, 0, 1e6, 0, -1, 10]), vectors)
    assert value == expected
    classes = np.array([0, 1, 2, 1, 0, 2])
    value, _ = function(classes, vectors)
    assert relative_error(value, double_sum(classes, cosines(vectors))) < 2e-6


def test_weights_multiply_by_pair_of_pairs():
    vectors, weights = vectors_of(), np.array([1.0, 0.5, 2.0, 0.0, 3.0, 0.25])
    value, _ = compiled_loss(layout="pairs")(LABELS, vectors, weights)
    truth = double_sum(LABELS, cosines(vectors), weights=weights)
    assert relative_error(value, truth) < 2e-6
    doubled = float(CoSENT()(LABELS, vectors, sample_weight=2.0))
    assert doubled == pytest.approx(double_sum(LABELS, cosines(vectors), weights=np.full(6, 2)))


@pytest.mark.slow
@pytest.mark.parametrize("filler", [0.0, 1.0, np.nan, np.inf])
@pytest.mark.parametrize("layout", ["pairs", "interleaved"])
def test_rows_without_weight_or_label_are_absent(layout, filler):
    vectors, copies = vectors_of(), 2 if layout == "interleaved" else 1
    value, gradient = compiled_loss(layout="pairs")(LABELS, vectors)
    padded = np.concatenate([vectors, np.full((2, 2, WIDTH), filler, "float32")])
    shaped = padded.reshape(-1, WIDTH) if layout == "interleaved" else padded
    for label, weight in ((9.0, 0.0), (np.nan, 1.0)):
        labels = np.append(LABELS, [label] * 2).repeat(copies)
        weights = np.append(np.ones(6), [weight] * 2).repeat(copies)
        other, of_other = compiled_loss(layout=layout)(labels, shaped, weights)
        assert relative_error(other, value) < 1e-6
        of_other = of_other.reshape(padded.shape)
        assert relative_error(of_other[:6], gradient) < 1e-6
        assert not of_other[6:].any()


def test_nan_vectors_show():
    vectors = vectors_of()
    vectors[2, 1, 0] = np.nan
    value, _ = compiled_loss(layout="pairs")(LABELS, vectors)
    assert np.isnan(value)


@pytest.mark.parametrize("score", ["cosine", "angle", "dot"])
def test_zero_vectors_are_finite_in_value_and_gradient(score):
    vectors = vectors_of()
    vectors[0], vectors[3, 1] = 0.0, 0.0
    value, gradient = compiled_loss(layout="pairs", score=score)(LABELS, vectors)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert gradient.any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    vectors = ops.cast(300.0 * vectors_of(), dtype)  # a square of it is infinite in float16
    rounded = ops.convert_to_numpy(ops.cast(vectors, "float32"))
    value, gradient = compiled_loss(layout="pairs")(LABELS, vectors)
    assert value.dtype == np.float32
    assert relative_error(value, double_sum(LABELS, cosines(rounded))) < 2e-6
    assert np.isfinite(np.asarray(gradient, "float32")).all()


def test_one_pair_and_equal_labels_are_zero():
    vectors = vectors_of()
    function = compiled_loss(layout="pairs")
    for labels, of_labels in ((LABELS[:1], vectors[:1]), (np.full(6, 3.0), vectors)):
        value, gradient = function(labels, of_labels)
        assert value == 0
        assert not gradient.any()


def model_of(layout, **options):
    """One layer, with the loss; the same weights for the same seed."""
    shape = (2, WIDTH) if layout == "pairs" else (WIDTH,)
    dense = keras.layers.Dense(WIDTH, kernel_initializer=keras.initializers.GlorotNormal(seed=1))
    model = keras.Sequential([keras.Input(shape), dense])
    model.compile("sgd", loss=CoSENT(layout=layout), **options)
    return model


def data_of(layout, vectors, labels):
    if layout == "pairs":
        return vectors, labels
    return vectors.reshape(-1, WIDTH), labels.repeat(2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "policy", "jit"),  # every two of them together
    [
        ("pairs", "float32", False),
        ("pairs", "mixed_bfloat16", False),
        ("pairs", "mixed_float16", True),
        ("interleaved", "float32", True),
        ("interleaved", "mixed_bfloat16", True),
        ("interleaved", "mixed_float16", False),
    ],
)
def test_fit_learns(layout, policy, jit):
    """Batches of 4 pairs; without XLA, which would compile twice, the last is of 2."""
    jit = jit or not ON_TENSORFLOW  # JAX takes minutes, operation by operation
    vectors = vectors_of(pairs=8 if jit else 10)
    labels = cosines(vectors[..., : WIDTH // 2])  # what a projection can learn
    x, y = data_of(layout, vectors, labels)
    keras.config.set_dtype_policy(policy)
    try:
        model = model_of(layout, jit_compile=jit)
    finally:
        keras.config.set_dtype_policy("float32")
    model.optimizer.learning_rate = 0.05
    size = 4 if layout == "pairs" else 8
    losses = model.fit(x, y, batch_size=size, epochs=12, shuffle=False, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["pairs", "interleaved"])
def test_fit_with_sample_and_class_weights(layout):
    """Class weights are sample weights by label."""
    vectors, labels = vectors_of(), np.array([0, 2, 1, 1, 0, 2])
    x, y = data_of(layout, vectors, labels)
    outputs = model_of(layout).predict(x, verbose=0).reshape(vectors.shape)
    by_class = np.array([1.0, 0.0, 3.0])
    truth = double_sum(labels, cosines(outputs), weights=by_class[labels])
    for weights in (
        {"sample_weight": by_class[y]},
        {"class_weight": {i: float(w) for i, w in enumerate(by_class)}},
    ):
        history = model_of(layout).fit(x, y, shuffle=False, verbose=0, **weights).history
        assert history["loss"][0] == pytest.approx(truth, rel=1e-5)


def test_odd_batches_raise():
    with pytest.raises(
        ValueError, match=r"number of rows is even.*Received: y_pred.shape=\(5, 4\)"
    ):
        CoSENT(layout="interleaved")(np.zeros(5), np.zeros((5, WIDTH), "float32"))


@pytest.mark.skipif(not ON_TENSORFLOW, reason="JAX knows every shape when it traces")
@pytest.mark.parametrize("jit", [False, True])
def test_odd_batches_in_fit_raise(jit):
    import tensorflow as tf

    model = model_of("interleaved", jit_compile=jit)
    x, y = data_of("interleaved", vectors_of(), LABELS)
    with pytest.raises(tf.errors.InvalidArgumentError, match="rows_of_pairs_must_be_even"):
        model.fit(x, y, batch_size=5, verbose=0)


@pytest.mark.parametrize(
    ("layout", "labels", "vectors", "weights"),
    [
        ("pairs", (6,), (12, 4), None),  # the other layout
        ("interleaved", (12,), (6, 2, 4), None),
        ("pairs", (6,), (6, 3, 4), None),  # triplets
        ("interleaved", (6,), (12, 4), None),  # labels by pair
        ("interleaved", (11,), (12, 4), None),
        ("pairs", (12,), (6, 2, 4), None),
        ("pairs", (6, 2), (6, 2, 4), None),
        ("pairs", (6,), (6, 2, 4), (6, 2)),
        ("interleaved", (12,), (12, 4), (6,)),
    ],
)
def test_other_shapes_raise(layout, labels, vectors, weights):
    weights = None if weights is None else np.ones(weights)
    with pytest.raises(ValueError, match="Received: .*shape="):
        CoSENT(layout=layout)(np.ones(labels), np.ones(vectors), sample_weight=weights)


def test_bad_options_raise():
    with pytest.raises(ValueError, match="layout is one of.*Received: layout='pair'"):
        CoSENT(layout="pair")
    with pytest.raises(ValueError, match="Received: score='euclidean'"):
        CoSENT(score="euclidean")
    with pytest.raises(ValueError, match="temperature above 0.*Received: temperature=0"):
        CoSENT(temperature=0)
    with pytest.raises(ValueError, match="even.*Received: 3 dimensions"):
        CoSENT(score="angle")(np.ones(6), np.ones((6, 2, 3)))


@pytest.mark.parametrize("score", ["angle", negative_distance])
def test_config_brings_the_loss_back(score):
    loss = CoSENT(temperature=0.25, score=score, name="other", reduction="sum")
    stored = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(stored)
    assert again.get_config() == loss.get_config()
    assert again.score == score
    vectors = vectors_of()
    assert float(again(LABELS, vectors)) == float(loss(LABELS, vectors))


def test_a_config_of_earlier_versions_has_a_scale():
    config = {"name": "cosent", "scale": 5.0, "layout": "interleaved", "score": "dot"}
    loss = CoSENT.from_config(config)
    assert loss.get_config() == CoSENT(0.2, "dot", "interleaved").get_config()
    assert config["scale"] == 5.0


def test_unregistered_score_is_not_found_when_loaded():
    stored = keras.saving.serialize_keras_object(CoSENT(score=not_registered))
    with pytest.raises(TypeError, match="Could not locate function 'not_registered'"):
        keras.saving.deserialize_keras_object(stored)
    objects = {"not_registered": not_registered}
    again = keras.saving.deserialize_keras_object(stored, custom_objects=objects)
    assert again.score is not_registered


def test_loss_of_a_cross_encoder_is_the_function():
    """Scores of a model that reads both texts at once need no vectors."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(loss=lambda y, s: ranking_logsumexp(y[:, 0], s[:, 0], temperature=1.0))
    x = vectors_of().reshape(PAIRS, -1)[:, :3]
    scores = model.predict(x, verbose=0)[:, 0].astype("float64")
    value = model.evaluate(x, LABELS[:, None], verbose=0)
    assert value == pytest.approx(double_sum(LABELS, scores, scale=1.0), rel=1e-5)


def test_shuffled_rows_show():
    vectors = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    labels = np.array([0, 0, np.nan, np.nan, 2, 2], "float32")
    loss = CoSENT(layout="interleaved")
    assert np.isfinite(float(loss(labels, vectors)))
    assert np.isfinite(float(loss(labels.reshape(-1, 1), vectors)))
    for torn in ([0, 0, 1, 2, 2, 2], [0, 0, np.nan, 1, 2, 2]):
        assert np.isnan(float(loss(np.array(torn, "float32"), vectors)))
    assert np.isnan(float(loss(np.array([0, 0, 1, 2, 1, 2]), vectors)))
