import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from keras_ext.metrics.retrieval_scores import RetrievalScores, retrieval_scores


@pytest.mark.parametrize("k", [1, 3, 10, 99])
def test_ndcg_equals_that_of_scikit_learn(k):
    rng = np.random.default_rng(0)
    gains = rng.integers(0, 4, (20, 12))
    gains[:, 0] += 1  # sklearn counts a query without relevant documents as 0
    scores = rng.normal(size=gains.shape)
    ranked = np.argsort(-scores)
    relevant = [dict(enumerate(row.tolist())) for row in gains]
    expected = ndcg_score(gains, scores, k=k)
    assert retrieval_scores(ranked, relevant, k).ndcg == pytest.approx(expected, abs=1e-12)
    assert 0.1 < expected < 0.99


def test_with_one_relevant_document_mrr_is_the_average_precision():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20, 12))
    right = rng.integers(0, 12, 20)
    expected = label_ranking_average_precision_score(np.eye(12)[right], scores)
    result = retrieval_scores(np.argsort(-scores), [{i} for i in right], k=12)
    assert result.mrr == pytest.approx(expected, abs=1e-12)
    assert result.recall == 1.0


def test_figures_of_a_case_by_hand():
    ranked = [[7, 2, 5], [4, 8, 9], [1, 3, 6], [0, 1, 2]]
    relevant = [{2, 5, 0}, {1}, {6}, set()]
    result = retrieval_scores(ranked, relevant, k=2)
    assert (result.k, result.queries, result.left_out) == (2, 3, 1)
    assert result.mrr == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert result.recall == pytest.approx((1 / 3 + 0 + 0) / 3)
    second = 1 / np.log2(3)
    assert result.ndcg == pytest.approx(second / (1 + second) / 3)
    result = retrieval_scores(ranked, relevant, k=3)
    assert result.mrr == pytest.approx((1 / 2 + 0 + 1 / 3) / 3)
    assert result.recall == pytest.approx((2 / 3 + 0 + 1) / 3)


def test_a_perfect_and_a_useless_ranking():
    perfect = retrieval_scores([[3, 1, 0, 2]], [{3: 2.0, 1: 1.0, 2: 0.0}])
    assert (perfect.mrr, perfect.recall, perfect.ndcg) == (1.0, 1.0, 1.0)
    useless = retrieval_scores([[3, 1], []], [{2}, {2}])
    assert (useless.mrr, useless.recall, useless.ndcg, useless.queries) == (0.0, 0.0, 0.0, 2)


def test_a_short_ranking_filled_with_minus_one_is_the_short_ranking():
    full = retrieval_scores(np.array([[2, 0, -1, -1]]), [[0, 9]], k=4)
    assert full == retrieval_scores([[2, 0]], [{0, 9}], k=4)
    assert isinstance(full, RetrievalScores) and full.recall == 0.5


def test_documents_may_have_names():
    assert retrieval_scores([["b", "a"]], [{"a"}]).mrr == 0.5


def test_without_a_query_that_counts_the_figures_are_nan():
    result = retrieval_scores([[0, 1]], [{0: 0.0}])
    assert np.isnan([result.mrr, result.recall, result.ndcg]).all()
    assert (result.queries, result.left_out) == (0, 1)
    assert retrieval_scores([], []).queries == 0


@pytest.mark.parametrize(
    ("ranked", "relevant", "k", "message"),
    [
        ([[0]], [{0}, {1}], 10, "Received: 1 rankings, 2 sets"),
        ([[0]], [{0}], 0, "Received: k=0"),
        ([[0, 1, 0]], [{0}], 3, r"Received: ranked\[0\] with 0 twice"),
        ([[0], [1]], [{0}, {1: -1.0}], 3, r"Received: relevant\[1\]: 1: -1.0"),
        ([[0]], [{0: float("nan")}], 3, "finite"),
    ],
)
def test_bad_input_is_refused(ranked, relevant, k, message):
    with pytest.raises(ValueError, match=message):
        retrieval_scores(ranked, relevant, k)


def test_a_repeated_document_beyond_k_does_not_matter():
    assert retrieval_scores([[0, 1, 0]], [{0}], k=2).mrr == 1.0
