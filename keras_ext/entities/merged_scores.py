"""The scores of all spans of texts as arrays: the spans as objects would take gigabytes."""

import itertools

import numpy as np

from keras_ext.data.spans import owned_spans, window_borders

END = 2**31 - 1  # above all characters


class MergedScores:
    """The scores of all spans of texts, merged from windows as `data.merge_windows` does.

    Every walk over it computes them anew, from the factors, or, with the "full" head, from the
    scores in windows. It yields, for a piece of a text at a time,

    - the index of the text;
    - the places (k,) of spans, ascending int64: starts and ends in characters, see `as_place`;
    - their scores (k, labels), float32.

    All pieces together have each span of characters once, also where several tokens share them.

    Args:
        head: `EfficientHead` or `FullHead`.
        windows: list of the `data.Window`s of the texts.
        scored: what `window_scores` gives for all of them.
    """

    def __init__(self, head, windows, scored):
        self.head, self.windows = head, windows
        self.borders = window_borders(windows)
        self.kept = [None] * len(windows)
        for indices, _, scores in scored:
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
            places, scores = np.zeros(0, "int64"), np.zeros((0, self.head.types), "float32")
            for index, limit in zip(group, limits, strict=True):
                starts, ends, new = self._spans(index)
                new_scores = self.head.read(self.kept[index], starts, ends)
                places = np.concatenate([places, new])
                places, scores = _merge(places, np.concatenate([scores, new_scores]))
                done = np.searchsorted(places, as_place(limit, 0))
                yield document, places[:done], scores[:done]
                places, scores = places[done:], scores[done:]

    def documents(self):
        """The same, for a whole text at a time."""
        for document, pieces in itertools.groupby(self, lambda piece: piece[0]):
            _, places, scores = zip(*pieces, strict=True)
            yield document, np.concatenate(places), np.concatenate(scores)

    def _spans(self, index):
        """The spans that a window owns, of any one type: starts and ends in tokens, places."""
        window = self.windows[index]
        starts, ends = np.triu_indices(len(window.ids))
        spans = np.stack([np.zeros_like(starts), starts, ends], axis=1)
        owned, characters = owned_spans(window, spans, self.borders)
        return starts[owned], ends[owned], as_place(*characters[:, 1:].T.astype("int64"))


def as_place(start, end):
    """Start and end in characters as one integer, in the order of starts."""
    return (start << 32) + end


def as_borders(places):
    """The starts and ends of places."""
    return places >> 32, places & (2**32 - 1)


def _merge(places, scores):
    """Sorted places, each once, and the highest score of each label there."""
    order = np.argsort(places, kind="stable")
    places, scores = places[order], scores[order]
    first = np.flatnonzero(np.diff(places, prepend=-1))
    if len(first) < len(places):
        places, scores = places[first], np.maximum.reduceat(scores, first, axis=0)
    return places, scores
