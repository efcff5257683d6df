import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_ext.data import check_examples, read_pairs


@pytest.fixture
def read(tmp_path):
    """Read a file of the given content and suffix."""

    def run(content, suffix=".tsv"):
        path = tmp_path / f"file{suffix}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_pairs(path)

    return run


SCORED = [("A cat sleeps.", "The cat is asleep.", 4.5), ("A cat.", "A tax.", 0.0)]
PAIRS = [pair[:2] for pair in SCORED]
TUPLES = [("a b", "c", "d", "e"), ("f", "g", "h", "i")]


@pytest.mark.parametrize(
    ("examples", "header"),
    [
        (SCORED, None),
        (SCORED, ("sentence1", "sentence2", "score")),
        (SCORED, ("Text1", " text2", "LABEL")),
        (PAIRS, None),
        (PAIRS, ("anchor", "positive")),
        (TUPLES, None),
        (TUPLES, ("anchor", "positive", "negative_1", "negative_2")),
    ],
)
def test_a_file_of_columns_says_the_same_with_tabs_and_commas(read, examples, header):
    rows = ([header] if header else []) + examples
    tabs = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    commas = "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in rows)
    for suffix in (".tsv", ".txt", ".data", ".TSV", ".csv"):
        assert read(tabs, suffix) == examples
    assert read(commas, ".csv") == examples
    assert read(b"\xef\xbb\xbf" + tabs.replace("\n", "\r\n\r\n").encode()) == examples


@pytest.mark.parametrize(
    ("row", "example"),
    [
        ({"text1": "a", "text2": "b", "score": 3}, ("a", "b", 3.0)),
        ({"label": "1", "id": 7, "sentence2": "b", "sentence1": "a"}, ("a", "b", 1.0)),
        ({"premise": "a", "hypothesis": "b", "gold_label": "neutral"}, ("a", "b", 1.0)),
        ({"question1": "a", "question2": "b", "is_duplicate": True}, ("a", "b", 1.0)),
        ({"query": "a", "positive": "b"}, ("a", "b")),
        ({"anchor": "a", "negatives": ["c", "d"], "positive": "b"}, ("a", "b", "c", "d")),
        ({"anchor": "a", "positive": "b", "negative": "c"}, ("a", "b", "c")),
        ({"text": "a", "source": None}, "a"),
        ("a", "a"),
    ],
)
def test_keys_of_json_name_the_texts_and_the_score(read, row, example):
    assert read(json.dumps(row) + "\n\n" + json.dumps(row), ".jsonl") == [example] * 2
    assert read(json.dumps([row, row], indent=1), ".json") == [example] * 2


def test_a_header_orders_the_columns_and_leaves_others_out(read):
    content = "label\tid\tsentence2\tsentence1\nentailment\t7\tb\ta\ncontradiction\t8\td\tc\n"
    assert read(content) == [("a", "b", 2.0), ("c", "d", 0.0)]


def test_words_of_inference_are_scores(read):
    content = "a\tb\tneutral\nc\td\tEntailment\ne\tf\tcontradiction\n"
    assert [example[2] for example in read(content)] == [1.0, 2.0, 0.0]


def test_one_column_is_bare_texts_even_of_numbers(read):
    assert read("one\n\n two \n3\n") == ["one", "two", "3"]
    assert read("text\none, two\n3\n4\n", ".txt") == ["one, two", "3", "4"]
    assert read('"one, ""two"""\n3\n', ".csv") == ['one, "two"', "3"]


def test_the_layout_of_the_sts_benchmark_is_known(read):
    rows = [
        "captions\tvideo\t2012test\t0001\t5.000\tA plane lands.\tA plane is landing.",
        'news\tpaper\t2013\t0002\t0.5\t"Never.\t12\tsource\tother source',
    ]
    expected = [("A plane lands.", "A plane is landing.", 5.0), ('"Never.', "12", 0.5)]
    assert read("\n".join(rows), ".csv") == expected


def test_quotes_join_lines_with_commas_and_never_with_tabs(read):
    assert read('"a\n, b","c ""d""",2\ne,f,3\n', ".csv") == [
        ("a\n, b", 'c "d"', 2.0),
        ("e", "f", 3.0),
    ]
    assert read('"a\tb\nc\t"d\n') == [('"a', "b"), ("c", '"d')]


@pytest.mark.parametrize(
    ("content", "suffix", "message"),
    [
        ("a\tb\t1\nc\t \t2\n", ".tsv", "line 2: one-sided pair"),
        ("a\tb\n\n\tc\n", ".tsv", "line 3: one-sided pair"),
        ("a,b,1\n,c,2\n", ".csv", "line 2: one-sided pair"),
        ("sentence1,sentence2\na,\n", ".csv", "line 2: one-sided pair"),
        ("a\tb\t1\nc\td\tnan\ne\tf\t2\n", ".tsv", "line 2: not a score.*Received: 'nan'"),
        ("a\tb\t1\nc\td\tinf\ne\tf\t2\n", ".tsv", "line 2: not a score.*Received: 'inf'"),
        ("a\tb\t1\nc\td\t\ne\tf\t2\n", ".tsv", "line 2: not a score.*Received: ''"),
        ("a\tb\t1\nc\td\te\nf\tg\t2\n", ".tsv", "line 2: not a score.*Received: 'e'"),
        ("x\ty\tlabel\na\tb\t1\nc\td\t2\n", ".tsv", "line 1: not a score.*known names"),
        ("text1\ttext2\tscore\na\tb\t\n", ".tsv", "line 2: not a score"),
        ("a\tb\t1\nc\td\n", ".tsv", "line 2: wrong number of columns. Expected 3"),
        ("a\nb\tc\n", ".txt", "line 2: wrong number of columns. Expected 1"),
        ("a\t1\nb\t2\n", ".tsv", "line 1: a score belongs to a pair of texts. Received: 1 texts"),
        ("a\tb\tc\t1\nd\te\tf\t2\n", ".tsv", "line 1: a score belongs to a pair.*3 texts"),
        ("text1\ttext1\ttext2\na\tb\tc\n", ".tsv", "line 1: cannot tell which are the texts"),
        ("text1,text2,score,label\na,b,1,2\n", ".csv", "line 1: cannot tell which"),
        ("anchor,negative\na,b\n", ".csv", "line 1: cannot tell which"),
        ("text1\ttext2\n", ".tsv", "holds no examples"),
        ("[]", ".json", "holds no examples"),
        (" \n", ".tsv", "the file is empty"),
        ('a,"b\nc,d\n', ".csv", "line 2: not CSV"),
        ('a,"b"c\n', ".csv", "line 1: not CSV"),
        (b"a\tb\n\xff\tc\n", ".tsv", "not UTF-8"),
        ('"a"\n{\n', ".jsonl", "line 2: not JSON"),
        ("a\tb\n", ".xml", "cannot tell the format from the suffix"),
        ('{"text1": "a", "text2": ""}', ".jsonl", "record 0: one-sided pair"),
        ('{"text1": "a", "text2": null}', ".jsonl", "record 0: a text must be a string"),
        ('{"text1": ["a"], "text2": "b"}', ".jsonl", "record 0: a text must be a string"),
        ('{"text": ""}', ".jsonl", "record 0: empty text"),
        ('{"words": "a"}', ".jsonl", "record 0: cannot tell which"),
        ("[3]", ".json", "record 0: expected an object"),
        ('{"text1": "a", "text2": "b", "score": NaN}', ".jsonl", "record 0: not a score"),
        ('{"text1": "a", "text2": "b", "score": null}', ".jsonl", "record 0: not a score"),
        ('["a", {"text1": "a", "text2": "b"}]', ".json", "record 1: all examples .* one form"),
        (
            '{"text1": "a", "text2": "b", "score": 1}\n{"text1": "a", "text2": "b"}',
            ".jsonl",
            "record 1: .*Expected 2 texts, a score.*Received: 2 texts, no score",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(read, content, suffix, message):
    with pytest.raises(ValueError, match=rf"(?s)file{suffix}.*{message}"):
        read(content, suffix)


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\t\n", codec="utf-8"), min_size=1),
            st.text(st.characters(exclude_characters="\t\n", codec="utf-8"), min_size=1),
            st.floats(0, 5),
        ).filter(lambda example: example[0].strip() and example[1].strip()),
        min_size=1,
    )
)
def test_what_was_written_with_tabs_is_read(tmp_path_factory, examples):
    path = tmp_path_factory.mktemp("pairs") / "file.tsv"
    content = "".join("\t".join(map(str, example)) + "\n" for example in examples)
    path.write_bytes(b"text1\ttext2\tscore\n" + content.encode())
    assert read_pairs(path) == [(a.strip(), b.strip(), score) for a, b, score in examples]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "largest"),
    [
        ("stsbenchmark_en/sts-train.csv", 5749, 5.0),
        ("stsbenchmark_en/sts-dev.csv", 1500, 5.0),
        ("stsbenchmark_en/sts-test.csv", 1379, 5.0),
        ("chinese_sts_b/STS-B.train.data", 5231, 5.0),
        ("chinese_sts_b/STS-B.valid.data", 1458, 5.0),
        ("chinese_sts_b/STS-B.test.data", 1361, 5.0),
        ("afqmc/train.txt", 34334, 1.0),
        ("afqmc/dev.txt", 4316, 1.0),
    ],
)
def test_real_files_are_read_whole(data_folder, name, size, largest):
    examples = read_pairs(data_folder / name)
    lines = (data_folder / name).read_text("utf-8").splitlines()
    assert len(examples) == len(lines) == size
    for line, (first, second, score) in zip(lines, examples, strict=True):
        cells = [cell.strip() for cell in line.split("\t")]
        assert first in cells and second in cells and score in map(number, cells)
    assert {0.0, largest} <= {example[2] for example in examples}
    kind, (first, second), labels = check_examples(examples)
    assert (kind, len(first), len(second)) == ("scored", size, size)
    assert labels.min() == 0.0 and labels.max() == largest


def number(cell):
    try:
        return float(cell)
    except ValueError:
        return None


def test_a_line_of_the_real_benchmark_is_where_it_should_be(data_folder):
    examples = read_pairs(data_folder / "stsbenchmark_en/sts-dev.csv")
    assert examples[1] == ("A young child is riding a horse.", "A child is riding a horse.", 4.75)
    assert any('"' in first for first, _, _ in examples)


def test_examples_become_columns():
    assert check_examples(["a", "b"]) == ("texts", [["a", "b"]], None)
    assert check_examples([["a", "b"], ("c", "d")]) == ("pairs", [["a", "c"], ["b", "d"]], None)
    assert check_examples(iter(TUPLES))[:2] == ("tuples", [list(x) for x in zip(*TUPLES)])  # noqa: B905
    for one in (1, 1.0, True, np.float32(1), np.int64(1)):
        kind, columns, labels = check_examples([("a", "b", one)])
        assert (kind, columns, labels.tolist()) == ("scored", [["a"], ["b"]], [1.0])
        assert labels.dtype == "float32"


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "no examples"),
        ("ab", "Expected a list of examples"),
        ({"a": "b"}, "Expected a list of examples"),
        ([{"text1": "a", "text2": "b"}], r"tuple \(text, text\).*example 0, dict"),
        ([("a", "b"), ("a",)], "example 1, tuple"),
        ([("a", 3)], "example 0, tuple"),
        ([("a", None)], "example 0, tuple"),
        ([("a", "b", "c", 1.0)], "example 0, tuple"),
        ([("a", "b"), 3], "example 1, int"),
        (["a", None], "example 1, NoneType"),
        ([("a", "b"), ("a", "b"), ("a", "b", 1)], "Expected 2 texts.*example 2, two texts and a"),
        ([("a", "b", 1), "c"], "Expected two texts and a score.*example 1, a text"),
        ([("a", "b", "c"), ("a", "b", "c", "d")], "Expected 3 texts.*example 1, 4 texts"),
        ([("a", "b"), ("", "b"), ("c", " \n")], "2 one-sided .*first is example 1"),
        ([("a", "b", 1), ("a", "", 2)], "1 one-sided .*first is example 1"),
        (["a", " ", ""], "2 empty texts, the first is example 1"),
        ([("a", "b", 1), ("c", "d", float("nan")), ("e", "f", 2)], "1 that are not, .*example 1"),
        ([("a", "b", float("inf"))], "must be a finite number"),
        ([("a", "b", 1e300)], "must be a finite number"),
    ],
)
def test_what_is_wrong_with_examples_is_said(examples, message):
    with pytest.raises(ValueError, match=message):
        check_examples(examples)
