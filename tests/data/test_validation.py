import time

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_ext.data import (
    Tokenizer,
    entities_to_tokens,
    labels_of,
    plan,
    read_cluener,
    read_cmeee,
    tokens_to_characters,
    validate,
)
from keras_ext.data.report import LOSSES

TOKENIZER = Tokenizer.from_characters(["abcdefghijklmnopqrstuvwxyz"], min_count=1)


def entity(start, end, label="x"):
    return {"start": start, "end": end, "label": label}


def check(text, *entities, labels=("x", "y"), max_length=8, stride=2):
    return validate(
        [{"text": text, "entities": list(entities)}], TOKENIZER, labels, max_length, stride
    )


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("out_of_range", [entity(-1, 2)]),
        ("out_of_range", [entity(0, 99)]),
        ("out_of_range", [entity(3, 3)]),
        ("out_of_range", [entity(4, 2)]),
        ("out_of_range", [entity(-5, -1, "unknown")]),
        ("unknown_label", [entity(0, 2, "z")]),
        ("unknown_label", [entity(0, 2, "z"), entity(0, 2, "z")]),
        ("duplicate", [entity(0, 2), entity(0, 2)]),
        ("out_of_range", [entity(2, 3)]),
        ("duplicate", [entity(0, 3)]),
        ("cut_by_window", [entity(0, 9)]),
        ("cut_by_window", [entity(1, 9)]),
    ],
)
def test_each_loss_is_counted_once_in_its_own_class(name, lost):
    report = check("ab cdefghi", entity(0, 2), *lost)  # 9 tokens: windows of tokens 0-5 and 3-8
    assert report.counts[name] == report.lost == len(lost)
    assert sum(report.counts[other] for other in LOSSES) == report.lost
    assert (report.entities, report.usable) == (1 + len(lost), 1)
    example = report.examples[name][-1]
    assert example["record"] == 0
    assert example["entity"] == lost[-1]
    with pytest.raises(ValueError, match=f"{name.replace('_', ' ')} +{len(lost)} "):
        report.raise_if_lost()


def test_blanks_at_the_edges_are_left_out_and_counted():
    report = check("ab cd  ef ", entity(2, 7, "x"), entity(6, 10, "y"), entity(0, 2))
    assert (report.usable, report.lost, report.counts["trimmed"]) == (3, 0, 2)
    assert report.examples["trimmed"][0]["entity"] == entity(2, 7)
    records = [{"text": "ab cd  ef ", "entities": [entity(2, 7)]}]
    _, (spans,), _ = plan(records, TOKENIZER, ["x"], 8, 2)
    assert spans.tolist() == [[0, 3, 4]]  # after the start token: a, b, c, d
    assert records[0]["entities"] == [entity(2, 7)]


@pytest.mark.parametrize("span", [(0, 1), (1, 2), (1, 5), (0, 4)])
def test_entities_that_begin_or_end_inside_a_token_are_lost_as_such(span):
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ab"])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    records = [{"text": "ab cd", "entities": [entity(0, 5), entity(*span)]}]
    report = validate(records, Tokenizer(words), ["x"], 8, 2)
    assert report.counts["off_token_border"] == report.lost == report.usable == 1


def test_nothing_lost_raises_nothing_and_kept_findings_are_no_loss():
    entities = [entity(0, 5), entity(1, 3), entity(1, 3, "y"), entity(4, 6)]
    report = check("abcdef", *entities)
    assert (report.usable, report.lost) == (4, 0)
    assert (report.counts["nested"], report.counts["crossing"]) == (2, 1)
    report.raise_if_lost()


def test_totals():
    records = [
        {"text": "abc ?d", "entities": [entity(0, 1)]},
        {"text": "", "entities": []},
        {"text": " \t", "entities": [entity(0, 1)]},
        {"text": "abcdefghi", "entities": [entity(0, 2), entity(7, 9)]},
    ]
    report = validate(records, TOKENIZER, ["x", "y"], max_length=8, stride=2)
    assert (report.records, report.windows, report.tokens, report.unknown_tokens) == (4, 3, 14, 1)
    assert report.counts["empty_text"] == 2
    assert report.counts["out_of_range"] == 1  # of blanks alone nothing is left
    assert report.per_label == {"x": 3, "y": 0}
    assert report.to_dict()["lost"] == 1


def test_the_table_shows_counts_examples_and_labels_without_examples():
    records = [{"text": "abc", "id": "r7", "entities": [entity(0, 1), entity(1, 9)]}]
    table = str(validate(records, TOKENIZER, ["x", "y"], 8, 2))
    assert "out of range              1" in table
    assert "record 0 (id='r7'): 'x' [1, 9) 'abc'" in table
    assert "y                       0   no example" in table
    assert "duplicate" not in table


def test_examples_are_limited():
    report = check("ab", *[entity(0, 9)] * 8)
    assert report.counts["out_of_range"] == 8
    assert len(report.examples["out_of_range"]) == 5


RECORDS = st.lists(
    st.builds(
        lambda text, spans: {"text": text, "entities": [entity(*span) for span in spans]},
        st.text(" abcdé", max_size=30),
        st.lists(
            st.tuples(st.integers(-1, 31), st.integers(-1, 31), st.sampled_from("xyz")), max_size=12
        ),
    ),
    min_size=1,
    max_size=3,
)


def sound(record):
    """The entities inside the text, without blanks at their edges."""
    text, found = record["text"], []
    for e in record["entities"]:
        start, end = e["start"], e["end"]
        if 0 <= start < end <= len(text):
            while start < end and text[start].isspace():
                start += 1
            while start < end and text[end - 1].isspace():
                end -= 1
            found.append(entity(start, end, e["label"]))
    return found


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(RECORDS, st.integers(4, 12), st.integers(0, 6))
def test_every_usable_entity_is_in_a_window_and_every_other_is_counted(records, length, stride):
    stride = min(stride, length - 3)
    windows, spans, report = plan(records, TOKENIZER, ["x", "y"], length, stride)
    assert (
        report.entities == sum(len(r["entities"]) for r in records) == report.usable + report.lost
    )
    assert sum(report.per_label.values()) == report.usable
    assert report.windows == len(windows) == len(spans)
    found = set()
    for window, local in zip(windows, spans, strict=True):
        assert local.dtype == np.int32
        trimmed = sound(records[window.document])
        direct = entities_to_tokens(trimmed, window.offsets, {"x": 0, "y": 1})
        assert {*map(tuple, local.tolist())} == {*map(tuple, direct.tolist())}
        for row in tokens_to_characters(local, window.offsets).tolist():
            found.add((window.document, *row))
    assert len(found) == report.usable
    for index, kind, start, end in found:
        assert entity(start, end, "xy"[kind]) in sound(records[index])


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda p: p[0] < p[1])))
def test_crossing_and_nested_equal_a_count_of_all_pairs(spans):
    report = check("abcdefghij", *[entity(a, b) for a, b in spans], max_length=16)
    crossing = sum(a < c < b < d for a, b in spans for c, d in spans)
    nested = sum(any((c, d) != (a, b) and c <= a and b <= d for c, d in spans) for a, b in spans)
    assert (report.counts["crossing"], report.counts["nested"]) == (crossing, nested)


def test_the_message_holds_for_an_entity_given_twice_too():
    report = check("ab", entity(0, 2), entity(0, 2))
    with pytest.raises(ValueError, match="^1 of 2 entities are lost or given twice. Expected none"):
        report.raise_if_lost()


@pytest.mark.slow
def test_the_windows_of_a_long_document_do_not_each_scan_all_entities():
    size = 40_000
    entities = [entity(start, start + 2) for start in range(0, size, 2)]
    started = time.perf_counter()
    _, spans, report = plan(
        [{"text": "ab" * (size // 2), "entities": entities[::-1]}], TOKENIZER, ["x"], 4, 0
    )
    assert time.perf_counter() - started < 8  # scanning took four times that
    assert report.usable == len(spans) == size // 2
    np.testing.assert_array_equal(np.concatenate(spans), [[0, 1, 2]] * (size // 2))


@pytest.mark.parametrize("labels", [[], ["x", "x"]])
def test_labels_must_be_given_once(labels):
    with pytest.raises(ValueError, match="labels must be given, each once"):
        check("ab", labels=labels)


def test_malformed_records_are_errors_that_name_the_record():
    with pytest.raises(ValueError, match="record 0: .text. must be a str"):
        validate([{"text": 3, "entities": []}], TOKENIZER, ["x"], 8, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("read", "name", "nested"),
    [
        (read_cluener, "cluener2020/dev.json", None),
        (read_cmeee, "cmeee_v2/CMeEE-V2_dev.json", 4522),
    ],
)
def test_no_entity_of_the_real_sets_is_lost_to_characters(data_folder, read, name, nested):
    records = read(data_folder / name)
    tokenizer = Tokenizer.from_characters(record["text"] for record in records)
    report = validate(records, tokenizer, labels_of(records), max_length=256, stride=128)
    report.raise_if_lost()
    assert nested is None or report.counts["nested"] == nested
