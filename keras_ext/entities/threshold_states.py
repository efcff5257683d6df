"""How many entities each policy gives at every threshold, and how many of them are gold."""

from typing import NamedTuple

import numpy as np

from keras_ext.entities.merged_scores import as_borders

LOWEST = np.float32(-20.0)  # a span that scores no more is no candidate
CHUNK = 2**20  # scores sorted at once


class States(NamedTuple):
    """What a threshold gives: nothing changes for `lower <= threshold < upper`.

    All arrays have one number a state, highest thresholds first, from `upper` infinite on.
    `predicted` and `correct` count entities, and gold ones among them.
    """

    upper: np.ndarray
    lower: np.ndarray
    predicted: np.ndarray
    correct: np.ndarray


def nested_states(spans, gold, groups):
    """The states of "nested" that can be the best, for groups of labels with one threshold each.

    Between the scores of two gold entities more predictions only lower the F1. So it is enough to
    count, for each score of a gold entity, how many spans score at least as much.

    Args:
        spans: `MergedScores`.
        gold: for each text the kinds and places, (m,) each, of its gold entities.
        groups: list of lists of kinds.

    Returns:
        A list of `States`.
    """
    kinds, found = [np.zeros(0, "int64")], [np.zeros(0, "float32")]
    for document, places, scores in spans:
        kind, wanted = gold[document]
        rows = np.searchsorted(places, wanted)
        hit = np.append(places, -1)[rows] == wanted
        kinds.append(kind[hit])
        found.append(scores[rows[hit], kind[hit]])
    kinds, found = np.concatenate(kinds), np.concatenate(found)
    kinds, found = kinds[found > LOWEST], found[found > LOWEST]
    levels = [np.unique(found[np.isin(kinds, group)], return_counts=True) for group in groups]
    predicted = [np.zeros(len(level) + 1, "int64") for level, _ in levels]
    below = [np.full(len(level) + 1, LOWEST) for level, _ in levels]  # the next score under each
    for scores in _chunks(scores for _, _, scores in spans):
        for (level, _), group, count, under in zip(levels, groups, predicted, below, strict=True):
            ranked = np.append(scores[:, group], LOWEST)  # so that there is one below each level
            ranked.sort()
            place = np.append(np.searchsorted(ranked, level), len(ranked))
            count += len(ranked) - place
            np.maximum(under, ranked[place - 1], out=under)
    states = []
    for (level, hits), count, under in zip(levels, predicted, below, strict=True):
        upper = np.append(level, np.float32(np.inf))
        correct = np.cumsum(np.append(0, hits[::-1]))
        states.append(States(upper[::-1], under[::-1], count[::-1], correct))
    return states


def policy_states(spans, gold, policy, thresholds=None, kind=None):
    """All states of "flat" or "longest", for a threshold of all labels, or of one of them.

    Args:
        spans: `MergedScores`.
        gold: as in `nested_states`.
        policy: "flat" or "longest".
        thresholds: float32 (labels,), those of the other labels, where a kind is given.
        kind: int, the label whose threshold varies; None: one threshold of all labels.

    Returns:
        `States`.
    """
    upper, lower, correct = [], [], []
    for document, places, scores in spans.documents():
        if kind is None:
            # At one place the label with the highest score, of equal ones the first, comes first.
            kinds, levels = scores.argmax(axis=1), scores.max(axis=1, initial=LOWEST)
            rows = np.flatnonzero(levels > LOWEST)
            kinds, ranked = kinds[rows], levels[rows]
            levels = ranked
        else:
            floors = thresholds.copy()
            floors[kind] = LOWEST
            rows, kinds = np.nonzero(scores > floors)
            ranked = scores[rows, kinds]
            levels = np.where(kinds == kind, ranked, np.float32(np.inf))
        starts, ends = as_borders(places[rows])
        lengths = starts - ends
        keys = (lengths, -ranked) if policy == "flat" else (-ranked, lengths)
        order = np.lexsort((kinds, starts, *keys))
        truth = set(zip(*(each.tolist() for each in gold[document]), strict=True))
        for row, low, high in kept(starts[order], ends[order], levels[order]):
            row = order[row]
            lower.append(low)
            upper.append(high)
            correct.append((int(kinds[row]), int(places[rows[row]])) in truth)
    upper, lower = np.array(upper, "float32"), np.array(lower, "float32")
    levels = np.unique([*upper, *lower[lower > LOWEST], np.float32(np.inf)])

    def count(which):
        """The intervals [lower, upper) that begin below each level, and do not end there."""
        ends, begins = np.sort(upper[which]), np.sort(lower[which])
        return np.searchsorted(begins, levels) - np.searchsorted(ends, levels)

    everything, correct = np.ones(len(upper), bool), np.array(correct, bool)
    lowest = np.append(LOWEST, levels[:-1])
    counts = count(everything), count(correct)
    return States(levels[::-1], lowest[::-1], *(each[::-1] for each in counts))


def kept(starts, ends, levels):
    """Which candidates a greedy choice keeps, at every threshold at once.

    The choice takes the first candidate that is above the threshold, and goes on left and right of
    it. As the threshold falls, it changes only where a candidate comes in that stands before all
    that were there: then the whole piece is chosen anew.

    Args:
        starts: int array (m,), in the order in which candidates are chosen.
        ends: likewise, exclusive.
        levels: float array (m,), above `LOWEST`: a candidate is in for thresholds below it.

    Yields:
        The index of a candidate, and low and high: it is kept for `low <= threshold < high`.
    """
    pieces = [(np.arange(len(starts)), LOWEST, np.float32(np.inf))]
    while pieces:
        rows, low, high = pieces.pop()
        if not len(rows):
            continue
        start, end, level = starts[rows], ends[rows], levels[rows]
        highest = np.maximum.accumulate(level)
        for first in [0, *np.flatnonzero(highest[1:] > highest[:-1]) + 1]:
            if low >= high:
                break
            top = min(level[first], high)
            yield rows[first], low, top
            inside = level > low
            pieces.append((rows[inside & (end <= start[first])], low, top))
            pieces.append((rows[inside & (start >= end[first])], low, top))
            low = level[first]


def _chunks(arrays):
    """Joins arrays of rows to about `CHUNK` numbers: a few large sorts take less than many."""
    held, size = [], 0
    for array in arrays:
        held.append(array)
        size += array.size
        if size >= CHUNK:
            yield np.concatenate(held)
            held, size = [], 0
    if held:
        yield np.concatenate(held)
