import random
from types import SimpleNamespace

import pytest
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.metrics.v1 import precision_recall_fscore_support
from seqeval.scheme import IOB2

from keras_ext.metrics.entity_scores import score_entities

LABELS = ("date", "person", "place")


def random_documents(seed, count=12, size=5, length=9):
    """Entities of all kinds: nested, crossing, equal borders, duplicates, empty documents."""
    rng = random.Random(seed)
    documents = []
    for _ in range(count):
        starts = [rng.randrange(length) for _ in range(rng.randrange(size + 1))]
        documents.append([(s, s + rng.randint(1, 4), rng.choice(LABELS)) for s in starts])
    return documents


def random_tags(rng, length=14):
    """A well-formed BIO sequence."""
    tags = []
    while len(tags) < length:
        label, size = rng.choice([*LABELS, None]), rng.randint(1, 3)
        tags += ["O"] if label is None else [f"B-{label}"] + [f"I-{label}"] * (size - 1)
    return tags[:length]


def naive(gold, predicted, keep):
    """Counts by looking at each entity in turn; `keep(entity, document)` picks the slice."""
    counts = {"gold": 0, "predicted": 0, "found": 0, "correct": 0}
    for here, there in zip(gold, predicted, strict=True):
        for entity in set(here):
            if keep(entity, here):
                counts["gold"] += 1
                counts["found"] += entity in there
        for entity in set(there):
            if keep(entity, there):
                counts["predicted"] += 1
                counts["correct"] += entity in here
    return counts


def is_nested(entity, document):
    start, end, _ = entity
    return any(o[0] <= start and end <= o[1] and o != entity for o in document)


def counts(score):
    return {name: getattr(score, name) for name in ("gold", "predicted", "found", "correct")}


@pytest.mark.parametrize("seed", range(8))
def test_equals_seqeval_on_flat_tags(seed):
    rng = random.Random(seed)
    gold_tags = [random_tags(rng) for _ in range(10)]
    tags = [random_tags(rng) if rng.random() < 0.5 else list(row) for row in gold_tags]
    spans = [
        [[(start, end + 1, label) for label, start, end in get_entities(row)] for row in rows]
        for rows in (gold_tags, tags)
    ]
    scores = score_entities(*spans)
    strict = {"scheme": IOB2, "zero_division": 0}
    for average, ours in (("micro", scores.micro.to_dict()), ("macro", scores.macro)):
        theirs = precision_recall_fscore_support(gold_tags, tags, average=average, **strict)
        figures = [ours["precision"], ours["recall"], ours["f1"], ours["support"]]
        assert figures == pytest.approx(theirs)
    table = precision_recall_fscore_support(gold_tags, tags, average=None, **strict)
    for score, *theirs in zip(scores.per_label.values(), *table, strict=True):
        assert [score.precision, score.recall, score.f1, score.support] == pytest.approx(theirs)
    assert scores.nested_only.gold == scores.nested_only.predicted == 0
    assert scores.flat_only == scores.micro


@pytest.mark.parametrize("seed", range(20))
def test_counts_equal_a_naive_count(seed):
    gold, predicted = random_documents(seed), random_documents(seed + 100)
    scores = score_entities(gold, predicted)
    assert counts(scores.micro) == naive(gold, predicted, lambda e, d: True)
    assert counts(scores.nested_only) == naive(gold, predicted, is_nested)
    assert counts(scores.flat_only) == naive(gold, predicted, lambda e, d: not is_nested(e, d))
    for label, score in scores.per_label.items():
        assert counts(score) == naive(gold, predicted, lambda e, d, label=label: e[2] == label)


def test_slices_of_a_hand_made_case():
    outer, inner, alone = (0, 20, "organisation"), (14, 20, "place"), (30, 33, "date")
    gold = [[outer, inner, alone]]
    # The inner entity alone: recall of nested ones is full, yet it is flat among the predictions.
    scores = score_entities(gold, [[inner]])
    assert (scores.nested_only.recall, scores.nested_only.predicted) == (1.0, 0)
    assert (scores.flat_only.recall, scores.flat_only.precision) == (0.0, 1.0)
    # A wrong inner one costs precision of the nested slice only.
    scores = score_entities(gold, [[outer, inner, alone, (0, 4, "person")]])
    assert (scores.nested_only.precision, scores.nested_only.recall) == (0.5, 1.0)
    assert (scores.flat_only.precision, scores.flat_only.recall) == (1.0, 1.0)
    assert scores.micro.f1 == pytest.approx(6 / 7)
    assert scores.macro["f1"] == pytest.approx(3 / 4)


def test_equal_borders_nest_only_with_another_label():
    twice = [[(0, 4, "person"), (0, 4, "person")]]
    assert score_entities(twice, twice).nested_only.gold == 0
    both = [[(0, 4, "person"), (0, 4, "place")]]
    assert score_entities(both, both).nested_only.gold == 2


def test_crossing_entities_are_flat():
    crossing = [[(0, 5, "person"), (3, 8, "place")]]
    assert score_entities(crossing, crossing).flat_only.gold == 2


def test_duplicates_count_once():
    scores = score_entities([[(0, 2, "a"), (0, 2, "a")]], [[(0, 2, "a")] * 3])
    assert counts(scores.micro) == {"gold": 1, "predicted": 1, "found": 1, "correct": 1}


def test_start_end_and_label_must_all_agree():
    for wrong in ((1, 5, "a"), (0, 4, "a"), (0, 5, "b")):
        assert score_entities([[(0, 5, "a")]], [[wrong]]).micro.f1 == 0.0


def test_documents_are_not_mixed_up():
    assert score_entities([[(0, 1, "a")], []], [[], [(0, 1, "a")]]).micro.f1 == 0.0


def test_order_and_kind_of_entities_do_not_matter():
    gold, predicted = random_documents(3), random_documents(4)
    expected = score_entities(gold, predicted).to_dict()
    assert score_entities(gold[::-1], predicted[::-1]).to_dict() == expected
    assert score_entities([d[::-1] for d in gold], predicted).to_dict() == expected
    records = [[{"start": s, "end": e, "label": label} for s, e, label in d] for d in gold]
    objects = [[SimpleNamespace(**record) for record in document] for document in records]
    assert score_entities(records, [iter(d) for d in predicted]).to_dict() == expected
    assert score_entities(objects, predicted).to_dict() == expected


def test_swapping_sides_swaps_precision_and_recall():
    gold, predicted = random_documents(5), random_documents(6)
    one, other = score_entities(gold, predicted), score_entities(predicted, gold)
    for name in ("micro", "nested_only", "flat_only"):
        assert getattr(one, name).precision == getattr(other, name).recall
        assert getattr(one, name).f1 == pytest.approx(getattr(other, name).f1)


def test_slices_add_up_to_micro():
    scores = score_entities(random_documents(7), random_documents(8))
    for name in ("gold", "predicted", "found", "correct"):
        parts = getattr(scores.nested_only, name) + getattr(scores.flat_only, name)
        assert parts == getattr(scores.micro, name)
    assert scores.nested_only.gold > 0


def test_only_given_labels_are_scored():
    gold = [[(0, 9, "a"), (0, 3, "b"), (4, 5, "c")]]
    scores = score_entities(gold, gold, labels=["b", "unused"])
    assert list(scores.per_label) == ["b"]
    assert scores.micro.gold == 1
    assert scores.nested_only.gold == 0  # its outer entity is left out


@pytest.mark.parametrize("documents", [[], [[]], [[], []]])
def test_nothing_divided_by_nothing_is_zero(documents):
    result = score_entities(documents, documents).to_dict()
    assert result["per_label"] == {}
    assert result["micro"]["f1"] == result["macro"]["f1"] == result["nested_only"]["recall"] == 0.0


def test_table_lists_every_row():
    document = [[(0, 9, "organisation"), (0, 3, "place")]]
    lines = str(score_entities(document, document)).splitlines()
    names = [line.split("  ")[0].strip() for line in lines[1:]]
    assert names == ["organisation", "place", "micro", "macro", "nested only", "flat only"]
    assert all("1.0000" in line for line in lines[1:])


def test_different_numbers_of_documents_are_refused():
    with pytest.raises(ValueError, match=r"len\(gold\)=2, len\(predicted\)=1"):
        score_entities([[], []], [[]])


@pytest.mark.parametrize("bad", [(0, 1), {"start": 0, "end": 1}, 7, (0.5, 1, "a"), ("0", 1, "a")])
def test_malformed_entities_are_refused(bad):
    with pytest.raises(ValueError, match="in document 1"):
        score_entities([[], [bad]], [[], []])
