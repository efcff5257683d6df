import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_ext.data import check_records, convert_offsets, read_records

TEXT = "Zoë 🚀 à Turin 清华"


def units(text, unit):
    """Length of a text, counted by encoding it."""
    width = {"characters": ("utf-32-le", 4), "utf16": ("utf-16-le", 2), "bytes": ("utf-8", 1)}[unit]
    return len(text.encode(width[0])) // width[1]


def counted(text, start, end, unit, one_based, end_inclusive):
    """Offsets of text[start:end] as another program counts them."""
    first, last = units(text[:start], unit) + one_based, units(text[:end], unit) + one_based
    return {"start": first, "end": last - end_inclusive, "label": "x", "text": text[start:end]}


@pytest.mark.slow
@given(
    text=st.text(st.characters(codec="utf-8"), min_size=1),
    unit=st.sampled_from(["characters", "utf16", "bytes"]),
    one_based=st.booleans(),
    end_inclusive=st.booleans(),
    data=st.data(),
)
def test_offsets_of_every_kind_give_the_mention(text, unit, one_based, end_inclusive, data):
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    entity = counted(text, start, end, unit, one_based, end_inclusive)
    (record,) = convert_offsets(
        [{"text": text, "entities": [entity]}], unit, one_based, end_inclusive
    )
    assert record["entities"] == [{**entity, "start": start, "end": end}]


@pytest.mark.parametrize(
    ("way", "named"),
    [
        (("utf16", False, False), "UTF-16 units: pass unit='utf16' to"),
        (("bytes", False, False), "bytes of UTF-8: pass unit='bytes' to"),
        (("characters", True, False), "one-based offsets: pass one_based=True to"),
        (("characters", False, True), "inclusive ends: pass end_inclusive=True to"),
        (
            ("characters", True, True),
            "one-based offsets and inclusive ends: pass one_based=True, end",
        ),
        (
            ("utf16", False, True),
            "UTF-16 units and inclusive ends: pass unit='utf16', end_inclusive",
        ),
    ],
)
def test_another_way_of_counting_is_found_out_and_named(tmp_path, way, named):
    path = tmp_path / "x.jsonl"
    entities = [counted(TEXT, *place, *way) for place in ((0, 3), (8, 13), (14, 16))]
    path.write_text(json.dumps({"text": TEXT, "entities": entities}))
    with pytest.raises(ValueError, match=f"record 0: offsets do not give the mention.*{named}"):
        read_records(path)
    settings = dict(zip(("unit", "one_based", "end_inclusive"), way, strict=True))
    (record,) = read_records(path, **settings)
    assert [TEXT[e["start"] : e["end"]] for e in record["entities"]] == ["Zoë", "Turin", "清华"]


@pytest.mark.parametrize("key", ["text", "mention", "entity", "value"])
def test_a_mention_of_any_name_is_compared_and_no_guess_is_made_without_a_fit(key):
    entity = {"start": 0, "end": 3, "label": "x", key: "Zoë"}
    assert check_records([{"text": TEXT, "entities": [entity]}])[0]["entities"] == [entity]
    wrong = {**entity, key: "Zoe"}
    with pytest.raises(ValueError, match=f"Expected: {key}='Zoe' at .0, 3.. Received: 'Zoë'.$"):
        check_records([{"text": TEXT, "entities": [wrong]}])


def test_all_records_are_asked_how_they_count():
    plain = {"text": "In Rome", "entities": [{"start": 3, "end": 7, "label": "x", "text": "Rome"}]}
    # One-based offsets would fit the second record alone as well.
    moved = counted(TEXT, 8, 13, "utf16", False, False)
    with pytest.raises(ValueError, match="record 1: .*unit='utf16'"):
        check_records([plain, {"text": TEXT, "entities": [moved]}])


def test_blanks_of_a_mention_may_differ():
    entity = {"start": 0, "end": 8, "label": "x", "text": "New York"}
    check_records([{"text": "New\nYork", "entities": [entity]}])


@pytest.mark.parametrize("start", [5, 40, -1])
def test_offsets_between_characters_are_errors(start):
    entity = {"start": start, "end": 7, "label": "x"}
    with pytest.raises(ValueError, match="record 0: an offset is no border of a character"):
        convert_offsets([{"text": TEXT, "entities": [entity]}], unit="utf16")


def test_what_cannot_be_asked_for_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="unknown unit.*unit='utf8'"):
        convert_offsets([{"text": "a", "entities": []}], unit="utf8")
    path = tmp_path / "x.conll"
    path.write_text("a O\n")
    with pytest.raises(ValueError, match="'conll' says how its offsets count.*end_inclusive=True"):
        read_records(path, end_inclusive=True)


def test_an_offset_before_the_first_one_is_an_error():
    for start, end in [(0, 3), (0, 0)]:
        records = [{"text": "Ada", "entities": [{"start": start, "end": end, "label": "x"}]}]
        with pytest.raises(ValueError, match="Expected offsets in characters from 1.*'start': 0"):
            convert_offsets(records, one_based=True)


def test_a_text_is_measured_once_for_all_its_entities():
    text = "a😀" * 2**16
    entities = [{"start": 3 * i, "end": 3 * i + 1, "label": "x"} for i in range(2**16)]
    (record,) = convert_offsets([{"text": text, "entities": entities}], unit="utf16")
    assert [entity["start"] for entity in record["entities"]] == list(range(0, 2**17, 2))
    for start, end in [(-(10**30), 1), (0, 10**30), (0, 2), (2, 3)]:
        entity = {"start": start, "end": end, "label": "x"}
        with pytest.raises(ValueError, match="no border of a character"):
            convert_offsets([{"text": text, "entities": [entity]}], unit="utf16")
