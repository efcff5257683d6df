"""Examples of sentence vectors: which kind they are, and their columns."""

from collections.abc import Mapping
from numbers import Real

import numpy as np


def check_examples(examples):
    """Tell what kind of examples to learn from these are, and split them into columns.

    Args:
        examples: Iterable of strings (`"texts"`), of `(text, text)` (`"pairs"`), of `(anchor,
            positive, negative, ...)` with any number of negatives (`"tuples"`) or of `(text, text,
            score)` (`"scored"`). Lists will do for tuples.

    Returns:
        A tuple `(kind, columns, labels)`: one of the four names; a list of m lists of strings; a
        float32 array of the scores, `None` for kinds without.

    Raises:
        ValueError: If there are none, kinds are mixed, something is no text, a text is
            empty, or a score is not finite.

    Example:

    >>> check_examples([("a", "b", 1), ("c", "d", 0.5)])
    ('scored', [['a', 'c'], ['b', 'd']], array([1. , 0.5], dtype=float32))
    """
    if isinstance(examples, (str, Mapping)):
        raise ValueError(f"Expected a list of examples. Received: examples={examples!r:.80}")
    examples = list(examples)
    if not examples:
        raise ValueError("There is nothing to learn from: no examples. Received: examples=[]")
    kinds = [_kind(index, example) for index, example in enumerate(examples)]
    for index, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise ValueError(
                f"Examples of two kinds are mixed. Expected {_described(kinds[0])}, as example 0. "
                f"Received: example {index}, {_described(kind)}: {examples[index]!r:.80}"
            )
    kind, width = kinds[0]
    if kind == "texts":
        columns = [examples]
    else:
        columns = [list(column) for column in zip(*examples, strict=True)]
    labels = _labels(columns.pop()) if kind == "scored" else None
    empty = [i for i in range(len(examples)) if any(not column[i].strip() for column in columns)]
    if empty:
        what = "empty texts" if kind == "texts" else "one-sided examples with an empty text"
        raise ValueError(
            f"An example needs all of its texts. Received: {len(empty)} {what}, the first is "
            f"example {empty[0]}: {examples[empty[0]]!r:.80}"
        )
    return kind, columns, labels


def _kind(index, example):
    """(kind, number of texts) of an example."""
    if isinstance(example, str):
        return "texts", 1
    if isinstance(example, (tuple, list)) and len(example) > 1:
        scored = len(example) == 3 and isinstance(example[-1], Real)
        texts = example[:2] if scored else example
        if all(isinstance(text, str) for text in texts):
            return ("scored" if scored else "tuples" if len(texts) > 2 else "pairs"), len(texts)
    raise ValueError(
        "An example is a text, or a tuple (text, text), (text, text, score) or (anchor, positive, "
        f"negative, ...). Received: example {index}, {type(example).__name__}: {example!r:.80}"
    )


def _described(kind):
    kind, width = kind
    return {"texts": "a text", "scored": "two texts and a score"}.get(kind, f"{width} texts")


def _labels(scores):
    with np.errstate(over="ignore"):
        labels = np.array(scores, "float32")
    bad = np.flatnonzero(~np.isfinite(labels))
    if bad.size:
        raise ValueError(
            f"A score must be a finite number. Received: {bad.size} that are not, the first in "
            f"example {bad[0]}: {scores[bad[0]]!r}"
        )
    return labels
