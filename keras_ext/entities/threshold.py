"""The thresholds with the best F1: how many entities each gives is counted for all at once."""

import numpy as np

from keras_ext.data.records import trimmed_entities
from keras_ext.entities.merged_scores import MergedScores, as_place
from keras_ext.entities.threshold_states import nested_states, policy_states


def best_threshold(recognizer, records, policy, per_label, batch_size):
    """`EntityRecognizer.best_threshold`, which describes arguments and results."""
    spans = MergedScores(recognizer, [record["text"] for record in records], batch_size)
    gold = [_gold_spans(record, recognizer.labels) for record in records]
    total = sum(
        len({(e["start"], e["end"], e["label"]) for e in trimmed_entities(r)}) for r in records
    )
    kinds = range(len(recognizer.labels))
    if policy == "nested":
        (states,) = nested_states(spans, gold, [list(kinds)])
    else:
        states = policy_states(spans, gold, policy)
    f1 = _f1(states, total)
    best = np.argmax(f1)  # of equal ones the first, that of the highest thresholds
    common = _between(states, best, 0.0) if f1[best] > 0 else 0.0
    if not per_label:
        return common
    thresholds = [common for _ in kinds]
    if policy != "nested":
        thresholds = _best_in_turn(spans, gold, policy, total, f1[best], thresholds)
    elif f1[best] > 0:
        states = nested_states(spans, gold, [[kind] for kind in kinds])
        thresholds = _jointly_best(states, total, f1[best], common)
    return dict(zip(recognizer.labels, thresholds, strict=True))


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
    settled, kind = 0, 0
    while settled < len(thresholds):
        others = np.array(thresholds, "float32")
        states = policy_states(spans, gold, policy, others, kind)
        scores = _f1(states, total)
        best = np.argmax(scores)
        settled += 1
        if scores[best] > f1:
            thresholds[kind], f1 = _between(states, best, thresholds[kind]), scores[best]
            settled = 1
        kind = (kind + 1) % len(thresholds)
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
    kinds = {label: kind for kind, label in enumerate(labels)}
    spans = {
        (kinds[e["label"]], as_place(e["start"], e["end"]))
        for e in trimmed_entities(record)
        if e["label"] in kinds and 0 <= e["start"] < e["end"] <= len(record["text"])
    }
    return np.array(sorted(spans), "int64").reshape(-1, 2).T
