"""Vectors compared with vectors: all pairs, or the best of a corpus."""

from collections.abc import Iterator
from numbers import Real
from typing import NamedTuple

import keras
import numpy as np

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


def texts_or_vectors(given, name, text_alone=True):
    """What users search or compare: texts, or vectors of them.

    Args:
        given: texts as in `as_texts`; or a vector (d,), or several (n, d): numbers in an array, a
            tensor of the backend, or a list of these or of numbers.
        name: what the argument is called, for messages.
        text_alone: bool, whether there may be one text alone.

    Returns:
        A list of str, or a float32 array (n, d); and whether it was one alone.

    Raises:
        ValueError: for anything else, and for vectors that are not finite.
    """
    given = list(given) if isinstance(given, Iterator) else given
    if not _is_vectors(given):
        return as_texts(given, name) if text_alone else (text_list(given, name), False)
    try:
        if isinstance(given, (list, tuple)):
            vectors = np.array([_as_array(row) for row in given], "float32")
        else:
            vectors = _as_array(given)
    except (TypeError, ValueError):
        raise ValueError(
            f"Vectors that stand in a list have one dimension d. Received: {name}={given!r:.80}"
        ) from None
    if vectors.ndim not in (1, 2) or not vectors.shape[-1] or not np.isfinite(vectors).all():
        raise ValueError(
            "A vector (d,), or several (n, d), is of finite numbers. Received: "
            f"{name} of shape {vectors.shape}, finite: {np.isfinite(vectors).all()}"
        )
    return np.atleast_2d(vectors), vectors.ndim == 1


def _is_vectors(given):
    """Whether this is a number, or an array, a tensor or a list of numbers."""
    if isinstance(given, (list, tuple)):
        return bool(given) and _is_vectors(given[0])
    if not isinstance(given, Real) and not hasattr(given, "shape"):
        return False
    kind = getattr(given, "dtype", type(given))
    name = str(getattr(kind, "name", kind))
    return "float" in name or "int" in name


def _as_array(given):
    if keras.ops.is_tensor(given):
        given = keras.ops.convert_to_numpy(given)
    return np.asarray(given, "float32")


def check_dimensions(first, second):
    """Raises ValueError where vectors (m, d) and (n, e) cannot be compared."""
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            "Vectors that are compared have the same dimension; shorter ones come from "
            "`encode(..., truncate_dim=...)` on both sides. Received: "
            f"{first.shape[1]} and {second.shape[1]} dimensions"
        )


def find(queries, corpus, texts, k, index):
    """`SentenceEncoder.search` of vectors, for each query a list of `Hit`.

    Args:
        queries: float32 (m, d), comparable with
        corpus: float32 (n, d).
        texts: list of n strings, or of None.
        k: int, at most n.
        index: a key of `INDEXES`.
    """
    check_dimensions(queries, corpus)
    scores, places = INDEXES[index](queries, corpus, k)
    return [
        [Hit(int(i), float(s), texts[i]) for i, s in zip(row, of_row, strict=True)]
        for row, of_row in zip(places, scores, strict=True)
    ]


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


INDEXES = {"numpy": exact_best, "faiss": faiss_best}
