import json

import pytest

from keras_ext.data import read_pairs, read_records
from keras_ext.files.text_file import load_json, model_folder, path_inside, read_object, read_text


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><body>404</body></html>\n", "HTML or XML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "HTML or XML page"),
        (b"\x1f\x8b\x08\0", "not UTF-8 text, but packed by gzip"),
        (b"PK\x03\x04\xff", "not UTF-8 text, but a zip archive"),
        (b"\xd0\xcf\x11\xe0", "not UTF-8 text: "),
        (bytes(100), "NUL bytes"),
        ("[PAD]\n[UNK]\n".encode("utf-16-le") * 9, "UTF-16"),
        (b" \n", "empty"),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".txt", ".tsv", ".csv", ".conll"])
def test_what_is_not_the_text_is_named_by_every_reader(tmp_path, content, match, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    readers = [read_text]
    readers += [read_records] if suffix != ".csv" else []
    readers += [read_pairs] if suffix != ".conll" else []
    for read in readers:
        with pytest.raises(ValueError, match=f"x{suffix}: .*{match}"):
            read(path)


@pytest.mark.parametrize(
    "text", ["<b> is bold\tbold\n", "PK stands for\tprimary key\n", "<s> a\t</s>"]
)
def test_a_text_that_only_looks_like_another_kind_is_read(tmp_path, text):
    (tmp_path / "x.tsv").write_text(text)
    assert read_text(tmp_path / "x.tsv") == text


@pytest.mark.parametrize("opened", ["[", '{"a":', '[{"text":'])
@pytest.mark.parametrize("depth", [120, 950, 200000])
def test_deep_json_is_a_value_error_that_names_the_source(tmp_path, opened, depth):
    text = opened * depth
    closed = text + "1" + "".join("}" if c == "{" else "]" for c in reversed(text) if c in "[{")
    with pytest.raises(ValueError, match="x: JSON of more than 100 levels"):
        load_json(closed, "x")
    (tmp_path / "x.jsonl").write_text('{"text": "a", "entities": []}\n' + closed)
    for read in (read_records, read_pairs):
        with pytest.raises(ValueError, match="x.jsonl.*JSON of more than 100 levels"):
            read(tmp_path / "x.jsonl")


@pytest.mark.parametrize("text", ["[" * 100 + "0" + "]" * 100, '{"a": ' * 99 + "[]" + "}" * 99])
def test_a_hundred_levels_are_read_as_json_reads_them(text):
    assert load_json(text, "x") == load_json(text.encode(), "x") == json.loads(text)


def test_many_brackets_are_not_deep():
    assert len(load_json("[" + ",".join(["[[{}]]"] * 500) + "]", "x")) == 500


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[1,\n2,\n}", "x: not JSON: .*line 3"),
        ('{"text": "a", "text": "b"}', "x: not JSON: an object has the key 'text' twice"),
        ('[{"a": {"b": 1, "c": 2, "b": 1}}]', "the key 'b' twice"),
        ("1" * 5000, "x: not JSON: .*digits"),
        (b"\xff\xff", "x: not JSON: "),
    ],
)
def test_what_is_no_json_is_named_with_its_source(text, match):
    with pytest.raises(ValueError, match=match):
        load_json(text, "x")


def test_an_object_is_asked_for_by_name(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(ValueError, match="Cannot read the file.*config.json"):
        read_object(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match="config.json: expected a JSON object. Received: list"):
        read_object(path)
    path.write_text('\ufeff{"a": 1}', encoding="utf-8")
    assert read_object(path) == {"a": 1}


@pytest.mark.parametrize(
    "name", ["../a", "a/../../b", "/etc", "C:\\x", "..\\x", "\\x", "a\0", 3, None]
)
def test_a_path_that_leads_out_of_the_folder_is_refused(name):
    with pytest.raises(ValueError, match="modules.json names what is not in its folder"):
        path_inside("folder", name, "modules.json")


@pytest.mark.parametrize("name", ["", "a", "a/b", "a..b", "..a"])
def test_a_path_inside_the_folder_is_joined(tmp_path, name):
    assert path_inside(tmp_path, name, "x") == tmp_path / name


@pytest.mark.parametrize("name", ["BAAI/bge-small-zh", "bert-base-chinese"])
def test_a_name_on_the_hub_is_told_how_to_be_downloaded(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    command = f"huggingface-cli download {name} --local-dir {name.rpartition('/')[2]}"
    with pytest.raises(ValueError, match=f"no such folder.*{command}.*folder='{name}'"):
        model_folder(name)
    (tmp_path / name).mkdir(parents=True)
    assert model_folder(name).is_dir()


def test_another_wrong_path_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such folder. Received: folder='.*absent'"):
        model_folder(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Expected a folder, not a file.*file'"):
        model_folder(tmp_path / "file")


@pytest.mark.parametrize("encoding", ["utf-8", "UTF_8", "u8", "utf-16-le", "utf-16", "utf-32-be"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, encoding):
    mark = "" if encoding == "utf-16" else "\ufeff"  # which writes one
    (tmp_path / "x.txt").write_bytes((mark + "Ada").encode(encoding))
    assert read_text(tmp_path / "x.txt", encoding) == "Ada"


@pytest.mark.parametrize("encoding", [None, 8, "utf-9", "hex"])
def test_what_is_no_encoding_is_named(tmp_path, encoding):
    for content in (b"Ada", b"\x1f\x8b\x08"):
        (tmp_path / "x.txt").write_bytes(content)
        with pytest.raises(ValueError, match="x.txt: "):
            read_text(tmp_path / "x.txt", encoding)
