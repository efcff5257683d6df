import collections

import pytest

from keras_ext.data import swap_mentions


def entity(start, end, label):
    return {"start": start, "end": end, "label": label}


RECORDS = [
    {"text": "Ada and Bo left.", "entities": [entity(0, 3, "person"), entity(8, 10, "person")]},
    {"text": "In Oslo Ada sat.", "entities": [entity(8, 11, "person"), entity(3, 7, "place")]},
    {"text": "Bank of Norway", "entities": [entity(0, 14, "firm"), entity(8, 14, "place")]},
    {"text": "Nothing here.", "entities": []},
]


def mentions(records):
    found = collections.defaultdict(set)
    for record in records:
        for e in record["entities"]:
            found[e["label"]].add(record["text"][e["start"] : e["end"]])
    return found


@pytest.mark.parametrize("seed", range(20))
def test_mentions_keep_their_labels_and_the_rest_its_text(seed):
    swapped = swap_mentions(RECORDS, rate=0.7, seed=seed)
    known = mentions(RECORDS)
    for old, new in zip(RECORDS, swapped, strict=True):
        labels = [e["label"] for e in old["entities"]]
        assert [e["label"] for e in new["entities"]] == labels
        for label, texts in mentions([new]).items():
            assert texts <= known[label]
        assert outside(old) == outside(new)


def outside(record):
    """The text with a blank in place of each entity."""
    text = list(record["text"])
    for e in record["entities"]:
        text[e["start"] : e["end"]] = "\0" * (e["end"] - e["start"])
    return "".join(text).replace("\0", "")


def test_overlapping_entities_stay():
    assert swap_mentions(RECORDS, rate=1.0)[2] == RECORDS[2]


def test_a_mention_with_an_entity_inside_is_put_nowhere_else():
    firm = {"text": "Acme fell", "entities": [entity(0, 4, "firm")]}
    for seed in range(20):
        swapped = swap_mentions([*RECORDS, firm], rate=1.0, seed=seed)
        assert swapped[-1]["text"] == "Acme fell"


def test_rate_zero_changes_nothing_and_the_input_stays():
    before = [dict(record) for record in RECORDS]
    assert swap_mentions(RECORDS, rate=0.0) == RECORDS
    swap_mentions(RECORDS, rate=1.0)
    assert before == RECORDS


def test_draws_depend_on_the_seed_alone():
    first, same, other = (
        [r["text"] for r in swap_mentions(RECORDS * 5, rate=0.5, seed=s)] for s in (1, 1, 2)
    )
    assert first == same
    assert first != other


def test_entities_outside_the_text_are_left_out():
    record = {"text": "Ada", "entities": [entity(0, 9, "person"), entity(0, 3, "person")]}
    assert swap_mentions([record])[0]["entities"] == [entity(0, 3, "person")]


def test_bad_rate():
    with pytest.raises(ValueError, match="rate=2"):
        swap_mentions(RECORDS, rate=2)
