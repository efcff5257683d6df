import json

import pytest

from keras_ext.data import read_records

RECORD = {"text": "ab", "entities": [{"start": 0, "end": 2, "label": "x"}]}
CMEEE = [
    {"text": "n", "entities": []},
    {"text": "ab", "entities": [{"start_idx": 0, "end_idx": 1, "type": "x", "entity": "ab"}]},
]
FILES = {
    "jsonl": (json.dumps(RECORD), [RECORD]),
    "cluener": (json.dumps({"text": "ab", "label": {"x": {"ab": [[0, 1]]}}}), [RECORD]),
    "cmeee": (json.dumps(CMEEE), [CMEEE[0], RECORD]),
    "conll": ("ab\tB-x\n", [RECORD]),
}


@pytest.mark.parametrize("format", FILES)
def test_a_named_format_needs_no_suffix(tmp_path, format):
    content, records = FILES[format]
    path = tmp_path / "file"
    path.write_text(content)
    assert read_records(path, format=format) == records


@pytest.mark.parametrize(
    ("format", "suffix"),
    [("jsonl", "jsonl"), ("jsonl", "JSON"), ("cluener", "json"), ("cmeee", "json")]
    + [("conll", suffix) for suffix in ("conll", "tsv", "txt", "annotated", "bio")],
)
def test_the_format_is_told_by_suffix_and_content(tmp_path, format, suffix):
    content, records = FILES[format]
    path = tmp_path / f"file.{suffix}"
    path.write_text(content)
    assert read_records(str(path)) == records


def test_an_unlabelled_file_gives_records_without_entities(tmp_path):
    path = tmp_path / "test.json"
    path.write_text('{"id": 0, "text": "ab"}\n')
    assert read_records(path) == [{"id": 0, "text": "ab"}]


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@pytest.mark.parametrize(
    "entities", [{"x": 1}, [3], "start_idx", ["start_idx"], [[]], [None], 7, True, {"start_idx": 0}]
)
def test_malformed_entities_are_an_error_that_names_file_and_record(tmp_path, suffix, entities):
    path = tmp_path / f"file.{suffix}"
    path.write_text(json.dumps([{"text": "a", "id": "r"}, {"text": "ab", "entities": entities}]))
    with pytest.raises(ValueError, match=rf"file.{suffix}, record 1: .* must be a (list|dict)"):
        read_records(path)


def test_unknown_formats_and_suffixes_are_errors(tmp_path):
    path = tmp_path / "file.xml"
    path.write_text("x")
    with pytest.raises(ValueError, match="file.xml: cannot tell the format"):
        read_records(path)
    with pytest.raises(ValueError, match="unknown format.*format='xml'"):
        read_records(path, format="xml")


def test_a_missing_file_is_the_usual_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_records(tmp_path / "absent.jsonl")
