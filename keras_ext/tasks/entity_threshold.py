"""The threshold with the best F1, by counting scores: the spans as objects would take gigabytes."""

import itertools

import numpy as np

from keras_ext.data.spans import owned_spans, window_borders
from keras_ext.tasks.entity_prediction import model_scores, windows_of

LOWEST = np.float32(-20.0)  # a span that scores no more is no candidate
CHUNK = 2**20  # scores sorted at once
END = 2**31 - 1  # above all characters


def best_threshold(recognizer, records, batch_size):
    """`EntityRecognizer.best_threshold`, which describes arguments and results.

    Between the scores of two gold entities more predictions only lower the F1. So it is enough to
    count, for each score of a gold entity, how many spans score at least as much.
    """
    spans = MergedScores(recognizer, [record["text"] for record in records], batch_size)
    gold = [_gold_spans(record, recognizer.labels) for record in records]
    found = [np.zeros(0, "float32")]
    for document, places, scores in spans:
        kinds, wanted = gold[document]
        rows = np.searchsorted(places, wanted)
        hit = np.append(places, -1)[rows] == wanted
        found.append(scores[rows[hit], kinds[hit]])
    found = np.concatenate(found)
    levels, correct = np.unique(found[found > LOWEST], return_counts=True)
    if not len(levels):
        return 0.0
    correct = np.cumsum(correct[::-1])[::-1]
    predicted = np.zeros(len(levels), "int64")
    below = np.full(len(levels), LOWEST)  # the highest score under each level
    for scores in _chunks(scores for _, _, scores in spans):
        scores = np.sort(np.append(scores, LOWEST))  # so that there is one below each level
        place = np.searchsorted(scores, levels)
        predicted += len(scores) - place
        below = np.maximum(below, scores[place - 1])
    total = sum(len({(e["start"], e["end"], e["label"]) for e in r["entities"]}) for r in records)
    f1 = 2 * correct / (predicted + total)
    best = np.flatnonzero(f1 == f1.max())[-1]
    return (float(levels[best]) + float(below[best])) / 2


class MergedScores:
    """The scores of all spans of texts, merged from windows as `data.merge_windows` does.

    Every walk over it computes them anew, from the factors, or, with the "full" head, from the
    scores in windows. It yields, for a piece of a text at a time,

    - the index of the text;
    - the places (k,) of spans, ascending int64: starts and ends in characters, see `_place`;
    - their scores (k, labels), float32.

    All pieces together have each span of characters once, also where several tokens share them.

    Args:
        recognizer: `EntityRecognizer`.
        texts: list of strings.
        batch_size: int, windows in a batch.
    """

    def __init__(self, recognizer, texts, batch_size):
        self.windows = windows_of(recognizer, texts)
        self.borders = window_borders(self.windows)
        self.head = recognizer.span_head
        self.kept = [None] * len(self.windows)
        for indices, scores in model_scores(recognizer, self.windows, batch_size):
            for index, row in zip(indices, scores, strict=True):
                starts, ends, _ = self._spans(index)
                self.kept[index] = self.head.keep(row, starts, ends)

    def __iter__(self):
        order = range(len(self.windows))
        for document, group in itertools.groupby(order, lambda i: self.windows[i].document):
            group = list(group)
            first = [self.windows[index].offsets[1:-1, 0].min() for index in group]
            # No later window has a span that starts before its limit.
            limits = [*np.minimum.accumulate(first[:0:-1])[::-1].tolist(), END]
            places, scores = np.zeros(0, "int64"), np.zeros((0, self.head.heads), "float32")
            for index, limit in zip(group, limits, strict=True):
                starts, ends, new = self._spans(index)
                new_scores = self.head.read(self.kept[index], starts, ends)
                places = np.concatenate([places, new])
                places, scores = _merge(places, np.concatenate([scores, new_scores]))
                done = np.searchsorted(places, _place(limit, 0))
                yield document, places[:done], scores[:done]
                places, scores = places[done:], scores[done:]

    def _spans(self, index):
        """The spans that a window owns, of any one type: starts and ends in tokens, places."""
        window = self.windows[index]
        starts, ends = np.triu_indices(len(window.ids))
        spans = np.stack([np.zeros_like(starts), starts, ends], axis=1)
        owned, characters = owned_spans(window, spans, self.borders)
        return starts[owned], ends[owned], _place(*characters[:, 1:].T.astype("int64"))


def _place(start, end):
    """Start and end in characters as one integer, in the order of starts."""
    return (start << 32) + end


def _merge(places, scores):
    """Sorted places, each once, and the highest score of each label there."""
    order = np.argsort(places, kind="stable")
    places, scores = places[order], scores[order]
    first = np.flatnonzero(np.diff(places, prepend=-1))
    if len(first) < len(places):
        places, scores = places[first], np.maximum.reduceat(scores, first, axis=0)
    return places, scores


def _chunks(arrays):
    """Joins arrays, flat, to about `CHUNK` numbers: a few large sorts take less than many small."""
    held, size = [], 0
    for array in arrays:
        held.append(array)
        size += array.size
        if size >= CHUNK:
            yield np.concatenate(held, axis=None)
            held, size = [], 0
    yield np.concatenate([*held, np.zeros(0, "float32")], axis=None)


def _gold_spans(record, labels):
    """Types and places, (m,) each, of the gold entities that a prediction can equal."""
    kinds = {label: kind for kind, label in enumerate(labels)}
    spans = {
        (kinds[e["label"]], _place(e["start"], e["end"]))
        for e in record["entities"]
        if e["label"] in kinds and 0 <= e["start"] < e["end"] <= len(record["text"])
    }
    return np.array(sorted(spans), "int64").reshape(-1, 2).T
