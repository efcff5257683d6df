import importlib.util
import json
import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
LABELS = {"person", "organisation", "place", "product", "date"}


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("nested_corpus", EXAMPLES / "nested_corpus.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def splits():
    read = {}
    for split in ("train", "dev"):
        path = EXAMPLES / "data" / f"nested_{split}.jsonl"
        read[split] = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return read


def surfaces(records, label):
    return {
        record["text"][entity["start"] : entity["end"]]
        for record in records
        for entity in record["entities"]
        if entity["label"] == label
    }


def depths(record):
    """The number of other entities around each entity."""
    spans = [(entity["start"], entity["end"]) for entity in record["entities"]]
    return [sum(s <= start and end <= e for s, e in spans) - 1 for start, end in spans]


def test_files_are_what_the_generator_makes(generator, splits):
    for split, records in splits.items():
        assert generator.make_corpus(len(records), split) == records
    assert (len(splits["train"]), len(splits["dev"])) == (900, 250)


def test_another_seed_makes_another_corpus(generator):
    assert generator.make_corpus(20, "dev", seed=1) != generator.make_corpus(20, "dev", seed=2)
    assert generator.make_corpus(0) == []


def test_unknown_split_is_refused(generator):
    with pytest.raises(ValueError, match="Received: split='test'"):
        generator.make_corpus(1, "test")


def test_markup_becomes_text_and_spans(generator):
    text, entities = generator.parse("The [organisation Bank of [place Norway]] sleeps.")
    assert text == "The Bank of Norway sleeps."
    assert [(text[e["start"] : e["end"]], e["label"]) for e in entities] == [
        ("Bank of Norway", "organisation"),
        ("Norway", "place"),
    ]


def test_spans_are_whole_words_in_the_text(splits):
    for record in splits["train"] + splits["dev"]:
        text, entities = record["text"], record["entities"]
        assert not re.search(r"[\[\]{}]|  |^\s|\s$", text), text
        assert 5 <= len(text.split()) <= 35, text
        assert entities == sorted(entities, key=lambda e: (e["start"], -e["end"]))
        for entity in entities:
            start, end = entity["start"], entity["end"]
            assert entity["label"] in LABELS
            assert 0 <= start < end <= len(text)
            assert text[start:end] == text[start:end].strip()
            assert start == 0 or not (text[start - 1].isalnum() and text[start].isalnum())
            assert end == len(text) or not (text[end - 1].isalnum() and text[end].isalnum())


def test_no_two_entities_cross_or_coincide(splits):
    for record in splits["train"] + splits["dev"]:
        spans = [(entity["start"], entity["end"]) for entity in record["entities"]]
        assert len(set(spans)) == len(spans)
        assert not any(a < c < b < d for a, b in spans for c, d in spans), record["text"]


def test_grammar_slips_are_absent(splits):
    slips = re.compile(r"\b(the the|a the|an the|a [AEIO]|an [^aeiouAEIO])|\bThe the|^[a-z]|\.\.")
    for record in splits["train"] + splits["dev"]:
        assert not slips.search(record["text"]), record["text"]


def test_a_quarter_of_the_entities_nest_and_some_three_deep(splits):
    for records in splits.values():
        nested = total = 0
        for record in records:
            spans = [(entity["start"], entity["end"]) for entity in record["entities"]]
            pairs = [(a, b) for a in spans for b in spans if a != b]
            inside = [(a, b) for a, b in pairs if b[0] <= a[0] and a[1] <= b[1]]
            nested += len({span for pair in inside for span in pair})
            total += len(spans)
        assert nested / total >= 0.25
        assert max(max(depths(record), default=0) for record in records) >= 2


def test_each_label_is_frequent_and_some_sentences_have_none(splits):
    for records in splits.values():
        used = [entity["label"] for record in records for entity in record["entities"]]
        assert set(used) == LABELS
        assert min(used.count(label) for label in LABELS) >= 50
        assert any(not record["entities"] for record in records)


def test_dev_names_and_sentences_are_not_in_train(splits):
    for label in ("person", "place", "product"):
        assert not surfaces(splits["train"], label) & surfaces(splits["dev"], label)
    shared = surfaces(splits["train"], "organisation") & surfaces(splits["dev"], "organisation")
    assert all(name.startswith("Ministry of ") for name in shared)
    texts = {split: {record["text"] for record in records} for split, records in splits.items()}
    assert not texts["train"] & texts["dev"]
    assert sum(map(len, texts.values())) == 1150


def test_word_lists_are_disjoint(generator):
    train, dev = set(), set()
    for both in (generator.NAMES[slot] for slot in generator.NAMES if slot != "plain"):
        known, new = (part.split(", ") for part in both.split(" | "))
        train.update(known)
        dev.update(new)
    assert not train & dev
    assert len(dev) > 50


def test_patterns_are_many_and_some_are_only_in_dev(generator):
    shared, new = generator.TEMPLATES.splitlines(), generator.DEV_TEMPLATES.splitlines()
    plain = re.split(r"; | \| ", generator.NAMES["plain"])
    assert len(set(shared + new + plain)) == len(shared + new + plain) >= 80
    assert len(new) >= 10


def test_a_name_means_different_things_in_context(splits):
    places, people = surfaces(splits["train"], "place"), surfaces(splits["train"], "person")
    assert {"Florence", "Chelsea", "Jordan"} & places & people
    assert places & surfaces(splits["train"], "organisation")
