from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, log2

import numpy as np


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """What `retrieval_scores` returns: means over queries, in [0, 1].

    Args:
        mrr: Mean of 1 / rank of the first relevant document; 0 for a query with none in the first
            `k`.
        recall: Mean share of the relevant documents that are among the first `k`.
        ndcg: Mean discounted gain, divided by that of the best order.
        k: How many documents of a ranking count.
        queries: How many queries the means are of.
        left_out: How many queries have no relevant document, and no part in the means.

    Example:

    >>> retrieval_scores([[2, 0]], [{0}]).mrr
    0.5
    """

    mrr: float
    recall: float
    ndcg: float
    k: int
    queries: int
    left_out: int


def retrieval_scores(ranked, relevant, k=10):
    """MRR@k, recall@k and nDCG@k of rankings.

        MRR = mean 1 / r,   recall = mean |first k and relevant| / |relevant|
        nDCG = mean DCG / DCG of the best order,   DCG = sum_{i <= k} g_i / log2(i + 1)

    r is the rank of the first relevant document, from 1, and g_i the gain of the i-th: 1 if it is
    relevant, or what the query's dict says. A query without relevant documents says nothing about
    a ranking; it is left out and counted.

    Args:
        ranked: One sequence of documents per query, best first, or an array (queries, n). A
            document is an index into the corpus, or any other key. -1 fills up a ranking that
            ends before.
        relevant: One set (or list) of relevant documents per query, or a dict from document to
            gain, a number >= 0; a gain of 0 is not relevant.
        k: How many documents of a ranking count. Defaults to 10.

    Returns:
        A `RetrievalScores`. Its figures are NaN where no query has a relevant document.

    Raises:
        ValueError: If the numbers of rankings and queries differ, k is not positive, a document
            occurs twice in the first k, or a gain is negative or not finite.

    Example:

    >>> scores = retrieval_scores([[3, 1, 2], [0, 2, 4]], [{1}, {4, 5}], k=3)
    >>> round(scores.mrr, 4), scores.recall, scores.queries
    (0.4167, 0.75, 2)
    """
    if len(ranked) != len(relevant):
        raise ValueError(
            "Expected one ranking for each query. Received: "
            f"{len(ranked)} rankings, {len(relevant)} sets of relevant documents"
        )
    if k < 1:
        raise ValueError(f"At least one document must count. Received: {k=}")
    figures = []
    for query, (ranking, wanted) in enumerate(zip(ranked, relevant, strict=True)):
        gains = _gains(query, wanted)
        found = [gains.get(document, 0.0) for document in _first(query, ranking, k)]
        if gains:
            first = next((rank for rank, gain in enumerate(found, start=1) if gain), None)
            best = sorted(gains.values(), reverse=True)[:k]
            recall = sum(gain > 0 for gain in found) / len(gains)
            figures.append((1 / first if first else 0.0, recall, _dcg(found) / _dcg(best)))
    means = np.mean(figures, axis=0).tolist() if figures else [float("nan")] * 3
    return RetrievalScores(*means, k, len(figures), len(ranked) - len(figures))


def _gains(query, wanted):
    """Dict from the relevant documents to their gain."""
    gains = dict(wanted) if isinstance(wanted, Mapping) else dict.fromkeys(wanted, 1.0)
    for document, gain in gains.items():
        if not isfinite(gain) or gain < 0:
            raise ValueError(
                f"A gain is a finite number >= 0. Received: relevant[{query}]: {document}: {gain}"
            )
    return {document: gain for document, gain in gains.items() if gain}


def _first(query, ranking, k):
    documents = ranking[:k].tolist() if isinstance(ranking, np.ndarray) else list(ranking[:k])
    counts = Counter(document for document in documents if document != -1)
    if len(counts) < sum(counts.values()):
        raise ValueError(
            "A ranking names each document once. Received: "
            f"ranked[{query}] with {counts.most_common(1)[0][0]!r} twice"
        )
    return documents


def _dcg(gains):
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains, start=1))
