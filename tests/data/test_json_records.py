import json

import pytest

from keras_ext.data import read_cluener, read_cmeee, read_jsonl, write_jsonl


def test_what_is_written_is_read_back(tmp_path):
    records = [
        {"text": "a\u2028b\x85c\r\n\t\0 😀 e\u0301", "entities": [], "id": 4},
        {"text": "lone \udc00 surrogate", "entities": [{"start": 0, "end": 4, "label": "é"}]},
        {"text": "no labels"},
    ]
    write_jsonl(records, tmp_path / "x.jsonl")
    assert read_jsonl(tmp_path / "x.jsonl") == records


def test_two_surrogates_in_a_row_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="record 0: two surrogates in a row"):
        write_jsonl([{"text": "\ud83d\ude00", "entities": []}], tmp_path / "x.jsonl")


def test_byte_order_mark_crlf_blank_lines_and_arrays_are_read(tmp_path):
    path = tmp_path / "x.json"
    record = {"text": "a", "entities": []}
    line = json.dumps(record)
    path.write_bytes(b"\xef\xbb\xbf" + f"{line}\r\n\r\n{line}\r\n".encode())
    assert read_jsonl(path) == [record, record]
    path.write_text(f"[{line}, {line}]")
    assert read_jsonl(path) == [record, record]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b" \r\n", "the file is empty"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"text": "a", "entities": []}\n{"text"\n', "line 2: not JSON"),
        (b"[1, ", "not JSON"),
        (b"[]", "no records"),
        (b'{"text": 3, "entities": []}', 'x.jsonl, record 0: "text" must be'),
    ],
)
def test_bad_files_are_named(tmp_path, content, message):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="x.jsonl.*" + message.split("x.jsonl")[-1]):
        read_jsonl(path)


def test_cluener_offsets_become_exclusive(tmp_path):
    path = tmp_path / "x.json"
    row = {"text": "彭小军认为,彭小军", "label": {"name": {"彭小军": [[0, 2], [6, 8]]}}, "id": 3}
    path.write_text(json.dumps(row) + "\n" + json.dumps({"text": "无"}))
    first, second = read_cluener(path)
    assert first["entities"] == [
        {"start": 0, "end": 3, "label": "name"},
        {"start": 6, "end": 9, "label": "name"},
    ]
    assert first["id"] == 3
    assert "label" not in first
    assert second == {"text": "无"}


def test_cmeee_offsets_become_exclusive(tmp_path):
    path = tmp_path / "x.json"
    entity = {"start_idx": 1, "end_idx": 2, "type": "sym", "entity": "bc"}
    path.write_text(json.dumps([{"text": "abcd", "entities": [entity]}]))
    assert read_cmeee(path) == [
        {"text": "abcd", "entities": [{"start": 1, "end": 3, "label": "sym"}]}
    ]


def test_offsets_that_miss_their_mention_are_errors(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"text": "abcd", "label": {"t": {"bc": [[0, 1]]}}, "id": 9}))
    with pytest.raises(ValueError, match=r"record 0 \(id=9\): offsets do not give the mention"):
        read_cluener(path)
    entity = {"start_idx": 3, "end_idx": 4, "type": "sym", "entity": "d"}
    path.write_text(json.dumps([{"text": "abcd", "entities": [{**entity, "start_idx": 2}]}]))
    with pytest.raises(ValueError, match="record 0: offsets do not give the mention"):
        read_cmeee(path)


@pytest.mark.parametrize("row", [{"label": {}}, {"text": "a", "label": {"t": ["a"]}}, 3, "a"])
def test_rows_of_another_form_are_errors(tmp_path, row):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"text": "a"}) + "\n" + json.dumps(row))
    with pytest.raises(ValueError, match="record 1: not a CLUENER record"):
        read_cluener(path)


@pytest.mark.slow
def test_the_real_chinese_sets_are_read_whole(data_folder):
    sizes = {"train": (10748, 23971), "dev": (1343, 3072), "test": (1345, 0)}
    for part, expected in sizes.items():
        records = read_cluener(data_folder / "cluener2020" / f"{part}.json")
        assert (len(records), sum(len(r.get("entities", ())) for r in records)) == expected
    records = read_cmeee(data_folder / "cmeee_v2" / "CMeEE-V2_dev.json")
    assert (len(records), sum(len(r["entities"]) for r in records)) == (5000, 26081)
