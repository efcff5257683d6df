import keras
import numpy as np
import pytest

from keras_ext.layers import EfficientGlobalPointer
from keras_ext.losses import FactoredGlobalPointerCrossentropy
from keras_ext.metrics import SpanF1
from keras_ext.ops import dense_span_scores

HEADS, SIZE, LENGTH = 2, 2, 5


def random_case(seed, batch=4):
    """Factors, and spans of which some are found, some repeated, some out of range."""
    rng = np.random.default_rng(seed)
    factored = rng.integers(-3, 3, (batch, LENGTH, 2 * (SIZE + HEADS))).astype("float32")
    factored[0, 3:, 2 * SIZE :] = -1e30
    spans = rng.integers(-1, LENGTH + 1, (batch, 16, 3))
    spans[..., 0] = rng.integers(-1, HEADS + 1, (batch, 16))
    spans[:, 1] = spans[:, 0]
    spans[:, 4:, 1:].sort()
    return spans, factored


def counts(spans, scores, threshold=0.0):
    """True positives, predicted and gold spans of each sample, as sets."""
    result = []
    for sample, sample_scores in zip(spans, scores, strict=True):
        predicted = {tuple(map(int, i)) for i in np.argwhere(sample_scores > max(threshold, -1e29))}
        inside = ((sample >= 0) & (sample < [HEADS, LENGTH, LENGTH])).all(1)
        gold = set(map(tuple, sample[inside].tolist()))
        result.append((len(predicted & gold), len(predicted), len(gold)))
    return np.array(result)


def f1(table):
    found, predicted, gold = np.sum(table, axis=0)
    return 2 * found / (predicted + gold) if predicted + gold else 0.0


def metrics(**options):
    return (
        SpanF1(HEADS, **options),
        SpanF1(HEADS, head_size=SIZE, factored=True, **options),
    )


@pytest.mark.parametrize("tril_mask", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 2.0, -3.0, 1e9])
def test_equals_a_count_of_sets_for_dense_and_factored_scores(threshold, tril_mask):
    spans, factored = random_case(0)
    dense = np.array(dense_span_scores(factored, HEADS, SIZE, tril_mask))
    expected = f1(counts(spans, dense, threshold))
    for metric, scores in zip(
        metrics(threshold=threshold, tril_mask=tril_mask), (dense, factored), strict=True
    ):
        assert float(metric(spans, scores)) == pytest.approx(expected, rel=1e-6)
    assert expected > 0 or threshold == 1e9


def test_is_of_the_corpus_and_not_the_mean_of_batches():
    batches = [random_case(seed, batch) for seed, batch in ((1, 1), (2, 5), (3, 2))]
    tables = [
        counts(spans, np.array(dense_span_scores(factored, HEADS, SIZE)))
        for spans, factored in batches
    ]
    metric = metrics()[1]
    for batch in batches:
        metric.update_state(*batch)
    corpus = f1(np.concatenate(tables))
    assert float(metric.result()) == pytest.approx(corpus, rel=1e-6)
    assert abs(np.mean([f1(table) for table in tables]) - corpus) > 1e-3
    metric.reset_state()
    assert float(metric(*batches[0])) == pytest.approx(f1(tables[0]), rel=1e-6)


def test_nothing_gold_and_nothing_predicted_is_zero():
    spans = np.full((2, 3, 3), -1)
    factored = np.zeros((2, LENGTH, 2 * (SIZE + HEADS)), "float32")
    factored[..., 2 * SIZE :] = -1.0
    dense = np.array(dense_span_scores(factored, HEADS, SIZE))
    for metric, scores in zip(metrics(), (dense, factored), strict=True):
        assert float(metric.result()) == 0.0
        assert float(metric(spans, scores)) == 0.0
        assert float(metric(np.zeros((2, 0, 3), "int32"), scores)) == 0.0


def test_perfect_prediction_is_one_also_with_repeated_labels():
    scores = np.full((1, HEADS, LENGTH, LENGTH), -1.0, "float32")
    scores[0, 0, 1, 3] = scores[0, 1, 1, 3] = scores[0, 0, 2, 2] = 1.0
    spans = np.array([[[0, 1, 3], [1, 1, 3], [0, 1, 3], [0, 2, 2], [-1, -1, -1], [0, 2, 2]]])
    assert float(metrics()[0](spans, scores)) == 1.0


@pytest.mark.parametrize("weights", [[1, 0, 1, 0], [2.0, 0.5, 0, 1], [1e-12] * 4])
def test_weights_multiply_the_counts_of_samples(weights):
    spans, factored = random_case(4)
    dense = np.array(dense_span_scores(factored, HEADS, SIZE))
    expected = f1(counts(spans, dense) * np.array(weights)[:, None])
    for metric, scores in zip(metrics(), (dense, factored), strict=True):
        result = metric(spans, scores, sample_weight=np.array(weights))
        assert float(result) == pytest.approx(expected, rel=1e-5)


def test_filler_rows_count_nothing_even_without_a_weight():
    spans, factored = random_case(5)
    expected = float(metrics()[1](spans, factored))
    filler = np.zeros_like(factored[:2])
    filler[..., : 2 * SIZE] = 50.0
    filler[..., 2 * SIZE :] = -1e30
    spans = np.concatenate([spans, np.full((2, 16, 3), -1)])
    factored = np.concatenate([factored, filler])
    assert float(metrics()[1](spans, factored)) == expected


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_scores_give_the_same_figure(dtype):
    spans, factored = random_case(6)
    dense = np.array(dense_span_scores(factored, HEADS, SIZE))
    expected = f1(counts(spans, dense))
    for metric, scores in zip(metrics(), (dense, factored), strict=True):
        scores = np.maximum(scores, -65504) if dtype == "float16" else scores
        result = metric(spans, keras.ops.cast(scores, dtype))
        assert float(result) == pytest.approx(expected, rel=1e-6)


def test_counts_beyond_what_half_precision_holds():
    metric = SpanF1(heads=1, dtype="bfloat16")
    scores = np.ones((300, 1, 1, 1), "float32")
    for _ in range(3):
        metric.update_state(np.zeros((300, 1, 3), "int32"), scores)
    assert [float(variable) for variable in metric.variables] == [900.0] * 3


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_fit_it_is_that_of_the_epoch(jit_compile):
    spans, _ = random_case(7)
    inputs = np.random.default_rng(8).normal(size=(4, LENGTH, 3)).astype("float32")
    head = EfficientGlobalPointer(HEADS, SIZE, factored=True)
    model = keras.Sequential([keras.Input((LENGTH, 3)), head])
    model.compile(
        keras.optimizers.SGD(0.0),
        loss=FactoredGlobalPointerCrossentropy(HEADS, SIZE),
        metrics=[metrics()[1]],
        jit_compile=jit_compile,
    )
    history = model.fit(inputs, spans, batch_size=2, epochs=2, verbose=0).history
    scores = np.array(dense_span_scores(model(inputs), HEADS, SIZE))
    assert f1(counts(spans, scores)) > 0
    assert history["span_f1"] == pytest.approx([f1(counts(spans, scores))] * 2, rel=1e-6)


def test_masked_pairs_are_below_every_threshold():
    spans = np.full((1, 1, 3), -1)
    for metric, scores in zip(
        metrics(threshold=-np.inf),
        (
            np.full((1, HEADS, LENGTH, LENGTH), -1e30, "float32"),
            np.full((1, LENGTH, 2 * (SIZE + HEADS)), -1e30, "float32") * ([0] * 4 + [1] * 4),
        ),
        strict=True,
    ):
        metric.update_state(spans, scores)
        assert float(metric.predicted) == 0.0


@pytest.mark.parametrize(
    ("factored", "shape"),
    [
        (False, (1, HEADS, LENGTH)),
        (False, (1, LENGTH)),
        (False, (1, HEADS + 1, LENGTH, LENGTH)),
        (False, (1, HEADS, LENGTH, LENGTH + 1)),
        (True, (1, LENGTH, 2 * (SIZE + HEADS) + 1)),
        (True, (1, HEADS, LENGTH, LENGTH)),
    ],
)
def test_other_shapes_raise(factored, shape):
    with pytest.raises(ValueError, match="Received: shape="):
        metrics()[factored].update_state(np.zeros((1, 2, 3)), np.zeros(shape, "float32"))


def test_factored_needs_the_head_size_and_spans_three_columns():
    with pytest.raises(ValueError, match="without head_size. Received: head_size=None"):
        SpanF1(HEADS, factored=True)
    with pytest.raises(ValueError, match="type, start, end"):
        metrics()[0].update_state(np.zeros((1, 2, 4)), np.zeros((1, HEADS, LENGTH, LENGTH)))
