from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import index


@dataclass(frozen=True, slots=True)
class Score:
    """Counts of one set of entities, and the figures that follow from them; 0/0 is 0.

    Args:
        gold: Number of gold entities.
        predicted: Number of predicted entities.
        found: Gold entities that were predicted (the numerator of the recall).
        correct: Predicted entities that are gold (the numerator of the precision). Equal to
            `found`, except in a slice: see `score_entities`.
    """

    gold: int = 0
    predicted: int = 0
    found: int = 0
    correct: int = 0

    @property
    def precision(self) -> float:
        """`correct / predicted`."""
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """`found / gold`."""
        return self.found / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0

    @property
    def support(self) -> int:
        """The number of gold entities."""
        return self.gold

    def to_dict(self) -> dict:
        """Figures and counts as plain numbers."""
        return {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "support": self.support,
            **asdict(self),
        }


@dataclass(frozen=True, slots=True)
class EntityScores:
    """What `score_entities` returns; `print` shows it as a table.

    Args:
        micro: `Score` over all entities.
        macro: Dict with the unweighted means of `precision`, `recall` and `f1` over the labels in
            `per_label`, and `support`.
        per_label: Dict from label to `Score`, sorted by label.
        nested_only: `Score` of the entities inside another one.
        flat_only: `Score` of the others.

    Example:

    >>> scores = score_entities([[(0, 3, "person")]], [[(0, 3, "person"), (4, 6, "person")]])
    >>> isinstance(scores, EntityScores), scores.micro.precision
    (True, 0.5)
    """

    micro: Score
    macro: dict
    per_label: dict
    nested_only: Score
    flat_only: Score

    def to_dict(self) -> dict:
        """Everything as nested dicts of plain numbers, ready for JSON."""
        return {
            "micro": self.micro.to_dict(),
            "macro": dict(self.macro),
            "per_label": {label: score.to_dict() for label, score in self.per_label.items()},
            "nested_only": self.nested_only.to_dict(),
            "flat_only": self.flat_only.to_dict(),
        }

    def __str__(self) -> str:
        parts = self.to_dict()
        rows = list(parts.pop("per_label").items())
        rows += [(name.replace("_", " "), row) for name, row in parts.items()]
        width = max(len(str(name)) for name, _ in rows)
        lines = [f"{'':{width}}  precision  recall      f1  support  predicted"]
        for name, row in rows:
            figures = f"{row['precision']:9.4f}  {row['recall']:6.4f}  {row['f1']:6.4f}"
            numbers = f"{row['support']:7d}  {row.get('predicted', ''):>9}"
            lines.append(f"{name!s:{width}}  {figures}  {numbers}".rstrip())
        return "\n".join(lines)


def score_entities(
    gold: Sequence, predicted: Sequence, labels: Iterable | None = None
) -> EntityScores:
    """Exact-match scores of predicted entities, with nested and flat ones apart.

    Each document is a set of (start, end, label); an entity counts only if all three agree, and
    one that is given twice counts once. Documents are pooled before dividing (micro).

    An entity is *nested* if another entity of the same document and the same side (gold, or
    predicted) contains it; equal borders with another label count as containing. In the slices
    `nested_only` and `flat_only`

    - recall is over the gold entities of the slice, found if predicted at all;
    - precision is over the predicted entities of the slice, correct if gold at all.

    Whether an entity is nested is judged among the entities of its own side, so an inner entity
    that is found without its outer one counts as nested in the recall and as flat in the
    precision. Gold counts of both slices sum to those of `micro`, and so do predicted ones.

    Args:
        gold: One iterable of entities per document. An entity is a `(start, end, label)` tuple, a
            mapping or an object with `start`, `end` and `label`.
        predicted: The same, for the same documents in the same order.
        labels: The labels to score; entities of others are left out before nesting is judged.
            `None` takes all that occur. Labels without gold and predicted entities do not enter
            `per_label` and `macro`. Defaults to `None`.

    Returns:
        An `EntityScores`.

    Raises:
        ValueError: If `gold` and `predicted` differ in length, or an entity lacks a field or has
            offsets that are not integers.

    Example:

    >>> gold = [[(0, 14, "organisation"), (8, 14, "place")]]
    >>> scores = score_entities(gold, [[(8, 14, "place")]])
    >>> scores.micro.precision, scores.micro.recall, scores.nested_only.recall
    (1.0, 0.5, 1.0)
    """
    if len(gold) != len(predicted):
        raise ValueError(
            "`gold` and `predicted` must hold the same number of documents. "
            f"Received: len(gold)={len(gold)}, len(predicted)={len(predicted)}"
        )
    wanted = None if labels is None else set(labels)
    truth, guess, inner_truth, inner_guess = set(), set(), set(), set()
    for number, (here, there) in enumerate(zip(gold, predicted, strict=True)):
        here, there = _triples(here, wanted, number), _triples(there, wanted, number)
        truth |= {(number, *entity) for entity in here}
        guess |= {(number, *entity) for entity in there}
        inner_truth |= {(number, *entity) for entity in _nested(here)}
        inner_guess |= {(number, *entity) for entity in _nested(there)}

    def score(some_truth, some_guess):
        return Score(
            gold=len(some_truth),
            predicted=len(some_guess),
            found=len(some_truth & guess),
            correct=len(some_guess & truth),
        )

    per_label = {}
    for label in sorted({entity[3] for entity in truth | guess}, key=str):
        of_label = [{entity for entity in side if entity[3] == label} for side in (truth, guess)]
        per_label[label] = score(*of_label)
    macro = {
        figure: sum(getattr(s, figure) for s in per_label.values()) / max(len(per_label), 1)
        for figure in ("precision", "recall", "f1")
    }
    return EntityScores(
        micro=score(truth, guess),
        macro={**macro, "support": len(truth)},
        per_label=per_label,
        nested_only=score(inner_truth, inner_guess),
        flat_only=score(truth - inner_truth, guess - inner_guess),
    )


def as_triple(entity) -> tuple:
    """An entity in any accepted form as `(start, end, label)`; ValueError if it is none."""
    try:
        if isinstance(entity, Mapping):
            start, end, label = entity["start"], entity["end"], entity["label"]
        elif hasattr(entity, "start"):
            start, end, label = entity.start, entity.end, entity.label
        else:
            start, end, label = entity
        return index(start), index(end), label
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "An entity must be a (start, end, label) tuple or have `start`, `end` and `label`, "
            f"with integer offsets. Received: entity={entity!r}"
        ) from error


def _triples(entities, wanted, number) -> set:
    """The set of (start, end, label) of one document."""
    try:
        triples = {as_triple(entity) for entity in entities}
    except ValueError as error:
        raise ValueError(f"{error} in document {number}") from error
    return {triple for triple in triples if wanted is None or triple[2] in wanted}


def _nested(entities: set) -> set:
    """The entities contained in another one, by a sweep over the starts."""
    borders = Counter((start, end) for start, end, _ in entities)
    inside, reach = set(), 0
    for start, end in sorted(borders, key=lambda span: (span[0], -span[1])):
        # All borders before these start no later, so the one that reaches furthest decides.
        if end <= reach or borders[start, end] > 1:
            inside.add((start, end))
        reach = max(reach, end)
    return {entity for entity in entities if entity[:2] in inside}
