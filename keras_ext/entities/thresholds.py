"""The thresholds with the best F1: how many entities each gives is counted for all at once."""

from typing import NamedTuple

import numpy as np

from keras_ext.data.records import trimmed_entities
from keras_ext.entities.merged_scores import as_borders, as_place

LOWEST = np.float32(-20.0)  # a span that scores no more is no candidate
CHUNK = 2**20  # scores sorted at once


def best_threshold(spans, records, labels, policy, per_label):
    """The best threshold of all labels, or a dict from label to threshold.

    Args:
        spans: `MergedScores` of the texts of the records.
        records: list of records.
        labels: list of label names.
        policy: as in `EntityRecognizer.best_threshold`.
        per_label: likewise.
    """
    gold = [_gold_spans(record, labels) for record in records]
    total = sum(
        len({(e["start"], e["end"], e["label"]) for e in trimmed_entities(r)}) for r in records
    )
    types = range(len(labels))
    if policy == "nested":
        (states,) = nested_states(spans, gold, [list(types)])
    else:
        states = policy_states(spans, gold, policy)
    f1 = _f1(states, total)
    best = np.argmax(f1)  # of equal ones the first, that of the highest thresholds
    common = _between(states, best, 0.0) if f1[best] > 0 else 0.0
    if not per_label:
        return common
    thresholds = [common for _ in types]
    if policy != "nested":
        thresholds = _best_in_turn(spans, gold, policy, total, f1[best], thresholds)
    elif f1[best] > 0:
        states = nested_states(spans, gold, [[one] for one in types])
        thresholds = _jointly_best(states, total, f1[best], common)
    return dict(zip(labels, thresholds, strict=True))


def _jointly_best(states, total, f1, common):
    """A threshold for each label, exactly, where labels do not meet: their counts are added up.

    The best ratio 2 sum(correct) / (sum(predicted) + total) is the f for which the largest
    2 sum(correct) - f sum(predicted) is f total; that one is found for each label by itself
    (Werner Dinkelbach, On Nonlinear Fractional Programming, 1967).
    """
    while True:
        best = [np.argmax(2 * each.correct - f1 * each.predicted) for each in states]
        counts = [(s.correct[i], s.predicted[i]) for s, i in zip(states, best, strict=True)]
        correct, predicted = np.sum(counts, axis=0)
        last, f1 = f1, 2 * correct / max(predicted + total, 1)
        if f1 <= last:
            return [_between(s, i, common) for s, i in zip(states, best, strict=True)]


def _best_in_turn(spans, gold, policy, total, f1, thresholds):
    """Thresholds of which no one alone can be changed to a better F1, from given ones."""
    settled, varied = 0, 0
    while settled < len(thresholds):
        others = np.array(thresholds, "float32")
        states = policy_states(spans, gold, policy, others, varied)
        scores = _f1(states, total)
        best = np.argmax(scores)
        settled += 1
        if scores[best] > f1:
            thresholds[varied], f1 = _between(states, best, thresholds[varied]), scores[best]
            settled = 1
        varied = (varied + 1) % len(thresholds)
    return thresholds


def _f1(states, total):
    return 2 * states.correct / np.maximum(states.predicted + total, 1)


def _between(states, index, least):
    """A threshold amid those of a state; `least`, if it fits, where all higher ones do."""
    lower, upper = float(states.lower[index]), float(states.upper[index])
    if np.isinf(upper):
        return max(lower, least)
    middle = (lower + upper) / 2
    return middle if np.float32(middle) < upper else lower  # neighbours have nothing between them


def _gold_spans(record, labels):
    """Types and places, (m,) each, of the gold entities that a prediction can equal."""
    types = {label: number for number, label in enumerate(labels)}
    spans = {
        (types[e["label"]], as_place(e["start"], e["end"]))
        for e in trimmed_entities(record)
        if e["label"] in types and 0 <= e["start"] < e["end"] <= len(record["text"])
    }
    return np.array(sorted(spans), "int64").reshape(-1, 2).T


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
        gold: for each text the types and places, (m,) each, of its gold entities.
        groups: list of lists of types.

    Returns:
        A list of `States`.
    """
    types, found = [np.zeros(0, "int64")], [np.zeros(0, "float32")]
    for document, places, scores in spans:
        gold_types, wanted = gold[document]
        rows = np.searchsorted(places, wanted)
        hit = np.append(places, -1)[rows] == wanted
        types.append(gold_types[hit])
        found.append(scores[rows[hit], gold_types[hit]])
    types, found = np.concatenate(types), np.concatenate(found)
    types, found = types[found > LOWEST], found[found > LOWEST]
    levels = [np.unique(found[np.isin(types, group)], return_counts=True) for group in groups]
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


def policy_states(spans, gold, policy, thresholds=None, varied=None):
    """All states of "flat" or "longest", for a threshold of all labels, or of one of them.

    Args:
        spans: `MergedScores`.
        gold: as in `nested_states`.
        policy: "flat" or "longest".
        thresholds: float32 (labels,), those of the other labels, where one is varied.
        varied: int, the type whose threshold varies; None: one threshold of all labels.

    Returns:
        `States`.
    """
    upper, lower, correct = [], [], []
    for document, places, scores in spans.documents():
        if varied is None:
            # At one place the label with the highest score, of equal ones the first, comes first.
            types, levels = scores.argmax(axis=1), scores.max(axis=1, initial=LOWEST)
            rows = np.flatnonzero(levels > LOWEST)
            types, ranked = types[rows], levels[rows]
            levels = ranked
        else:
            floors = thresholds.copy()
            floors[varied] = LOWEST
            rows, types = np.nonzero(scores > floors)
            ranked = scores[rows, types]
            levels = np.where(types == varied, ranked, np.float32(np.inf))
        starts, ends = as_borders(places[rows])
        lengths = starts - ends
        keys = (lengths, -ranked) if policy == "flat" else (-ranked, lengths)
        order = np.lexsort((types, starts, *keys))
        truth = set(zip(*(each.tolist() for each in gold[document]), strict=True))
        for row, low, high in kept(starts[order], ends[order], levels[order]):
            row = order[row]
            lower.append(low)
            upper.append(high)
            correct.append((int(types[row]), int(places[rows[row]])) in truth)
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
