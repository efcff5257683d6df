import numpy as np
import pytest

from keras_ext.entities import decode_factored_spans, decode_spans
from keras_ext.entities.decoding import BLOCK, score_factored_spans
from keras_ext.ops import dense_span_scores

HEADS, SIZE = 3, 2


def integer_factors(seed, lengths=(6, 4, 1, 0)):
    """Small integers: the scores are exact, and many tie with the threshold."""
    rng = np.random.default_rng(seed)
    factored = rng.integers(-2, 3, (len(lengths), 6, 2 * (SIZE + HEADS))).astype("float32")
    for sample, length in enumerate(lengths):
        factored[sample, length:, 2 * SIZE :] = -1e30
    return factored


def reference(factored, thresholds, tril_mask=True):
    """Every (type, start, end) with its score, one at a time."""
    decoded = []
    for sample in factored.astype("float64"):
        query, key, starts, ends = np.split(sample, [SIZE, 2 * SIZE, 2 * SIZE + HEADS], axis=1)
        found = []
        for i, j, head in np.ndindex(6, 6, HEADS):
            score = query[i] @ key[j] + starts[i, head] + ends[j, head]
            if score > max(thresholds[head], -1e29) and (i <= j or not tril_mask):
                found.append((head, i, j, score))
        decoded.append(found)
    return decoded


def as_list(decoded):
    return [
        [(*map(int, span), float(score)) for span, score in zip(*sample, strict=True)]
        for sample in decoded
    ]


@pytest.mark.parametrize("tril_mask", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 3.0, -4.0, 100.0, (0.0, 2.0, 5.0), (9.0, -1.0, 9.0)])
def test_pruned_decoding_equals_thresholding_all_pairs(threshold, tril_mask):
    factored = integer_factors(0)
    dense = np.array(dense_span_scores(factored, HEADS, SIZE, tril_mask))
    expected = reference(factored, np.broadcast_to(threshold, HEADS), tril_mask)
    assert as_list(decode_spans(dense, threshold)) == expected
    pruned = decode_factored_spans(factored, HEADS, SIZE, threshold, tril_mask)
    assert as_list(pruned) == expected


def test_some_scores_of_these_cases_tie_with_the_threshold():
    factored = integer_factors(0)
    dense = np.array(dense_span_scores(factored, HEADS, SIZE))
    ties = np.argwhere(dense[0] == 3.0).tolist()
    assert len(ties) > 2
    decoded = decode_factored_spans(factored, HEADS, SIZE, threshold=3.0)[0][0].tolist()
    assert len(decoded) > 2
    assert not any(tie in decoded for tie in ties)


def test_pruning_survives_rounding():
    # The threshold is a score that was rounded: its own span must not be found, the next must.
    factored = np.random.default_rng(1).normal(size=(1, 6, 2 * (SIZE + HEADS)))
    factored = factored.astype("float32")
    spans, scores = decode_factored_spans(factored, HEADS, SIZE, threshold=-np.inf)[0]
    assert len(spans) == HEADS * 6 * 7 / 2
    for threshold in np.sort(scores):
        found, values = decode_factored_spans(factored, HEADS, SIZE, threshold)[0]
        assert np.array_equal(found, spans[scores > threshold])
        assert np.array_equal(values, scores[scores > threshold])


@pytest.mark.parametrize("n", [1, 6, BLOCK + 60])  # one block of rows, and two
def test_scores_of_given_spans_are_those_of_decoding_to_the_bit(n):
    factored = np.random.default_rng(5).normal(size=(1, n, 2 * (SIZE + HEADS))).astype("float32")
    ((spans, values),) = decode_factored_spans(factored, HEADS, SIZE, threshold=-np.inf)
    some = np.random.default_rng(6).permutation(len(spans))[:500]
    types, starts, ends = spans[some].T
    scores = score_factored_spans(factored[0], HEADS, SIZE, starts, ends)
    assert scores.dtype == np.float32
    assert np.array_equal(scores[np.arange(len(some)), types], values[some])


def test_result_is_sorted_int32_and_float32():
    for decoded in (
        decode_factored_spans(integer_factors(2), HEADS, SIZE),
        decode_spans(np.array(dense_span_scores(integer_factors(2), HEADS, SIZE))),
    ):
        spans, scores = decoded[0]
        assert (spans.dtype, scores.dtype) == (np.int32, np.float32)
        assert (spans.shape, scores.shape) == ((len(scores), 3), (len(scores),))
        order = [(start, end, type_) for type_, start, end in spans.tolist()]
        assert order == sorted(order)
        assert decoded[3][0].shape == (0, 3)  # the sample without a token


def test_no_threshold_lets_a_masked_pair_through():
    factored = integer_factors(3)
    dense = np.array(dense_span_scores(factored, HEADS, SIZE))
    pairs = [6 * 7 // 2, 4 * 5 // 2, 1, 0]
    for decoded in (
        decode_spans(dense, -np.inf),
        decode_factored_spans(factored, HEADS, SIZE, -np.inf),
    ):
        assert [len(scores) for _, scores in decoded] == [HEADS * count for count in pairs]


def test_scores_are_those_of_the_cells():
    scores = np.random.default_rng(4).normal(size=(2, HEADS, 5, 5)).astype("float32")
    for sample, (spans, values) in zip(scores, decode_spans(scores), strict=True):
        assert np.array_equal(values, sample[tuple(spans.T)])
        assert len(values) == np.sum(sample > 0)


def test_no_sample_gives_no_list():
    assert decode_spans(np.zeros((0, 1, 2, 2), "float32")) == []
    assert decode_factored_spans(np.zeros((0, 2, 6), "float32"), heads=1, head_size=2) == []


@pytest.mark.parametrize("threshold", [(0.0, 1.0), np.zeros((3, 1)), (0.0,)])
def test_number_of_thresholds_is_one_or_that_of_the_types(threshold):
    for decode in (
        lambda: decode_spans(np.zeros((1, HEADS, 2, 2)), threshold),
        lambda: decode_factored_spans(integer_factors(0), HEADS, SIZE, threshold),
    ):
        with pytest.raises(ValueError, match="3 types. Received: threshold="):
            decode()


def test_other_shapes_raise():
    for shape in ((HEADS, 2, 2), (1, HEADS, 2, 3)):
        with pytest.raises(ValueError, match="batch, heads, length, length.*Received: shape="):
            decode_spans(np.zeros(shape))
    with pytest.raises(ValueError, match="Factored span scores of 4 types"):
        decode_factored_spans(integer_factors(0), 4, SIZE)
