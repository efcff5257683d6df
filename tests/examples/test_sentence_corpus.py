import importlib.util
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from keras_ext.data import check_examples, read_pairs
from keras_ext.metrics import spearman

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = {"train": 1200, "dev": 300, "test": 300}


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location(
        "sentence_corpus", EXAMPLES / "sentence_corpus.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def splits():
    return {split: read_pairs(EXAMPLES / "data" / f"graded_{split}.tsv") for split in SIZES}


def sentences(pairs):
    return {text for pair in pairs for text in pair[:2]}


def test_files_are_what_the_generator_makes(generator, splits):
    assert generator.SPLITS == SIZES
    for split, pairs in splits.items():
        assert generator.make_pairs(SIZES[split], split) == pairs


def test_another_seed_makes_other_pairs(generator):
    first, second = (generator.make_pairs(12, "dev", seed) for seed in (1, 2))
    assert not sentences(first) == sentences(second)
    assert generator.make_pairs(0) == []
    with pytest.raises(ValueError, match="Received: split='valid'"):
        generator.make_pairs(1, "valid")


def test_they_are_scored_pairs_with_all_grades_alike_often(splits):
    for split, pairs in splits.items():
        kind, columns, labels = check_examples(pairs)
        assert kind == "scored" and len(columns) == 2
        grades = np.bincount(labels.astype(int))
        assert grades.tolist() == [SIZES[split] // 6] * 6


def test_splits_share_no_sentence_and_no_thing(generator, splits):
    for first, second in combinations(splits, 2):
        assert not sentences(splits[first]) & sentences(splits[second])
        for topic in generator.TOPICS:
            names = [
                {name for thing in generator.things_of(topic, split) for name in thing.split("=")}
                for split in (first, second)
            ]
            assert not names[0] & names[1] and min(map(len, names)) >= 4


def test_dev_and_test_have_templates_of_their_own_in_use(generator, splits):
    everything = [t for topic in generator.TOPICS for t in all_templates(generator, topic)]
    assert len(everything) == len(set(everything)) == 240
    for split, own in (("dev", 2), ("test", 3)):
        used = set()
        for topic in generator.TOPICS:
            known, mine = (generator.templates_of(topic, name) for name in ("train", split))
            assert len(mine) == 4
            for shared, request in zip(known, mine, strict=True):
                assert request[:5] == shared and len(request) == 5 + own
                used |= {t for t in request[5:] if any(map(pattern(t), sentences(splits[split])))}
                assert not any(
                    any(map(pattern(t), sentences(splits["train"]))) for t in request[5:]
                )
        assert len(used) > 0.9 * own * 24


def all_templates(generator, topic):
    known, dev, test = (generator.templates_of(topic, split) for split in SIZES)
    return [t for a, b, c in zip(known, dev, test, strict=True) for t in a + b[5:] + c[5:]]


def pattern(template):
    parts = map(re.escape, re.split(r"\{thing\}|\{day\}", template))
    return re.compile("n? ?.+".join(parts).replace(r"a\ n? ?", r"an?\ ")).fullmatch


def test_templates_name_the_thing_once_and_the_day_at_most_once(generator):
    for topic in generator.TOPICS:
        for template in all_templates(generator, topic):
            slots = re.findall(r"\{.*?\}", template)
            assert slots.count("{thing}") == 1 and slots.count("{day}") <= 1
            assert len(slots) == slots.count("{thing}") + slots.count("{day}")
            assert re.fullmatch(r"[A-Z{][^.?;|]+[.?]", template), template


def test_sentences_are_clean(splits):
    slips = re.compile(
        r"[^A-Za-z0-9 ,.?'-]|  |^\s|\s$|\b(the the\b|[Aa] [AEIOaeio]|an (?!hour)[^AEIOaeio])"
    )
    for pairs in splits.values():
        for text in sentences(pairs):
            assert not slips.search(text), text
            assert re.match("[A-Z0-9]", text) and text[-1] in ".?" and len(text.split()) >= 4


def test_no_pair_occurs_twice_or_is_one_sentence(splits):
    for pairs in splits.values():
        assert len({frozenset(pair[:2]) for pair in pairs}) == len(pairs)
        assert all(first != second for first, second, _ in pairs)


def test_the_grade_follows_from_request_thing_and_day(generator):
    asked = ("sports", 0, "sauna", "Monday")
    for other, grade in (
        (("sports", 0, "sauna", "Monday"), 5), (("sports", 0, "sauna", "Friday"), 4),
        (("sports", 0, "sauna", None), 4), (("sports", 0, "gym", "Monday"), 3),
        (("sports", 1, "sauna", "Monday"), 2), (("sports", 1, "gym", "Monday"), 1),
        (("waste", 0, "sofa", "Monday"), 0),
    ):  # fmt: skip
        assert generator.grade(asked, other) == generator.grade(other, asked) == grade


def test_words_in_common_do_not_give_the_grade_away(generator, splits):
    for pairs in splits.values():
        grades = np.array([pair[2] for pair in pairs])
        shares = np.array([generator.overlap(first, second) for first, second, _ in pairs])
        assert abs(spearman(grades, shares)) < 0.1
        assert np.mean(shares[grades == 2] > 0.4) > 0.05
        assert np.mean(shares[grades == 5] < 0.25) > 0.5


def test_sentences_are_many(splits):
    for split, pairs in splits.items():
        counts = Counter(text for pair in pairs for text in pair[:2])
        assert len(counts) > SIZES[split]
        assert max(counts.values()) <= 12
