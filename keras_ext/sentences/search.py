"""Vectors compared with vectors: all pairs, or the best of a corpus."""

from typing import NamedTuple

import numpy as np

from keras_ext.ops.settings import whole
from keras_ext.sentences.vectors import unit_rows
from keras_ext.tasks.inputs import as_texts, text_list

BLOCK = 2**22  # scores that are in memory at once


class Hit(NamedTuple):
    """A text of a corpus that was found.

    `index` is its place in the corpus, `score` how well it fits the query; `text` is None where the
    corpus was given as vectors.

    Example:

    >>> Hit(3, 0.5, "a text").text
    'a text'
    """

    index: int
    score: float
    text: str | None = None


def similarity(encoder, first, second, batch_size):
    """`SentenceEncoder.similarity`, which describes the arguments."""
    first = _vectors(encoder, first, batch_size, "first")
    second = _vectors(encoder, second, batch_size, "second")
    _check_dimensions(first, second)
    return first @ second.T


def search(encoder, queries, corpus, k, index, batch_size):
    """`SentenceEncoder.search`, which describes the arguments."""
    alone, k = False, whole("k", k)
    if not _is_vectors(queries):
        queries, alone = as_texts(queries, "queries")
    if index not in ("numpy", "faiss"):
        raise ValueError(f'Expected the index "numpy" or "faiss". Received: {index=}')
    corpus = corpus if _is_vectors(corpus) else text_list(corpus, "corpus")
    if not len(corpus):
        raise ValueError("There is nothing to search in: the corpus is empty.")
    texts = [None] * len(corpus) if _is_vectors(corpus) else corpus
    vectors = _vectors(encoder, corpus, batch_size, "corpus")
    queries = _vectors(encoder, queries, batch_size, "queries")
    _check_dimensions(queries, vectors)
    best = faiss_best if index == "faiss" else exact_best
    scores, places = best(queries, vectors, min(k, len(corpus)))
    hits = [
        [Hit(int(i), float(s), texts[i]) for i, s in zip(row, of_row, strict=True)]
        for row, of_row in zip(places, scores, strict=True)
    ]
    return hits[0] if alone else hits


def exact_best(queries, corpus, k):
    """The k rows of a corpus with the largest inner products, for each query.

    Args:
        queries: float32 (m, d).
        corpus: float32 (n, d).
        k: int, at most n.

    Returns:
        float32 scores (m, k), falling, and int64 indices (m, k); of equal scores the first row
        stands first.

    Example:

    >>> exact_best(np.array([[1.0]]), np.array([[1.0], [3.0], [2.0]]), 2)[1].tolist()
    [[1, 2]]
    """
    step = max(1, BLOCK // len(corpus))
    parts = [_block_best(queries[i : i + step], corpus, k) for i in range(0, len(queries), step)]
    if not parts:
        return np.zeros((0, k), "float32"), np.zeros((0, k), "int64")
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _block_best(queries, corpus, k):
    scores = queries @ corpus.T
    if k < len(corpus):
        # Everything above the k-th score is in; of those equal to it, the first ones.
        bar = np.partition(scores, -k, axis=1)[:, -k, None]
        rank = np.where(scores > bar, 0, np.where(scores == bar, 1, 2)).astype("int8")
        places = np.sort(np.argsort(rank, axis=1, kind="stable")[:, :k], axis=1)
    else:
        places = np.broadcast_to(np.arange(len(corpus)), scores.shape)
    found = np.take_along_axis(scores, places, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(places, order, axis=1)


def faiss_best(queries, corpus, k):
    """As `exact_best`, by faiss; of equal scores any stands first."""
    try:
        import faiss
    except ImportError:
        raise ImportError(
            'The index "faiss" needs that library: pip install faiss-cpu. Without it: index="numpy"'
        ) from None
    index = faiss.IndexFlatIP(corpus.shape[1])
    index.add(np.ascontiguousarray(corpus, "float32"))
    return index.search(np.ascontiguousarray(queries, "float32"), k)


def _vectors(encoder, given, batch_size, name):
    """Vectors as they are compared: inner products are scores."""
    if _is_vectors(given):
        vectors = np.asarray(given, "float32")
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise ValueError(
                "Vectors are a finite array, one row each. Received: "
                f"{name} of shape {given.shape}, finite: {np.isfinite(vectors).all()}"
            )
    else:
        vectors = encoder.encode(text_list(given, name), batch_size=batch_size)
    return comparable(vectors, encoder.settings["score"])


def comparable(vectors, score):
    """Vectors whose inner products are scores: for the cosine of length 1, copied if they are not."""
    if score != "cosine":
        return vectors
    squares = np.einsum("ij,ij->i", vectors, vectors)
    return vectors if (np.abs(squares - 1.0) < 1e-5).all() else unit_rows(vectors)


def _is_vectors(given):
    return isinstance(given, np.ndarray) and given.dtype.kind == "f"


def _check_dimensions(first, second):
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            "Vectors that are compared have the same dimension; shorter ones come from "
            "`encode(..., truncate_dim=...)` on both sides. Received: "
            f"{first.shape[1]} and {second.shape[1]} dimensions"
        )
