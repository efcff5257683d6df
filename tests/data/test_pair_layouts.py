"""Files of pairs as the public sets and other programs lay them out; the sentences are ours."""

import json
import warnings

import pytest

from keras_ext.data import read_pairs

A, B, C, D = "A cat sleeps.", "The cat is asleep.", "A dog runs", "Nobody runs"
TWO = [(A, B, 1.0), (C, D, 0.0)]


@pytest.fixture
def read(tmp_path):
    """Read a file of the given content, or of rows of JSON, and suffix."""

    def run(content, suffix=".tsv", **settings):
        path = tmp_path / f"file{suffix}"
        if not isinstance(content, str):
            content = "\n".join(json.dumps(row) for row in content)
        path.write_text(content, encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return read_pairs(path, **settings)

    return run


def lines(header, *rows):
    return "".join("\t".join(map(str, row)) + "\n" for row in (header, *rows) if row)


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("id\tsentence1\tsentence2\tlabel", [(1, A, B, 1), (2, C, D, 0)]),  # PAWS
        ("text_a\ttext_b\tlabel", [(A, B, 1), (C, D, 0)]),  # LCQMC
        (
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
            [(0, 1, 2, A, B, 1), (1, 3, 4, C, D, 0)],
        ),
        (
            "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
            [(1, 12, 13, A, B), (0, 14, 15, C, D)],
        ),  # MRPC
        ("\ttext 1\tText-2\tSimilarity", [(0, A, B, 1), (1, C, D, 0)]),  # an index of pandas
        ("idx\tpremise\thypothesis\tsimilarity_score", [(0, A, B, 1), (1, C, D, 0)]),
        (None, [(11, A, B, 1), (12, C, D, 0)]),  # ATEC: the ids come first
        (None, [(A, B, 1), (C, D, 0)]),  # BQ
        ("sentence1\tsentence2\tlabel", [(A, B, "true"), (C, D, "FALSE")]),
    ],
)
def test_public_layouts_give_their_scores(read, header, rows):
    assert read(lines(header.split("\t") if header else None, *rows)) == TWO


@pytest.mark.parametrize(
    "name", ["relatedness_score", "gold", "similarity", "label_score", "score"]
)
def test_scores_are_found_by_their_names(read, name):
    content = lines(
        ("sentence_A", "sentence_B", name, "entailment_judgment"), (A, B, 4.8, "NEUTRAL")
    )
    assert read(content) == [(A, B, 4.8)]
    assert read([{"sentence_A": A, "sentence_B": B, name: 4.8, "genre": "x"}], ".jsonl") == [
        (A, B, 4.8)
    ]


@pytest.mark.parametrize("value", [0.4, 3, True, "0.4", "85%", "entailment", [0.1, 0.9]])
def test_a_score_of_an_unknown_name_is_asked_for(read, value):
    row = {"sentence1": A, "sentence2": B, "rating": value}
    with pytest.raises(ValueError, match=r"'rating' holds numbers.*columns={'rating': 'score'}"):
        read([row], ".jsonl")
    assert read([row], ".jsonl", columns={"rating": None}) == [(A, B)]
    if not isinstance(value, list):
        with pytest.raises(ValueError, match="'rating' holds numbers or classes"):
            read(lines(row.keys(), row.values()))


def test_declared_columns_are_what_they_are_said_to_be(read):
    content = lines(("left", "right", "note", "rating"), (A, B, C, 0.4), (C, D, A, 0.9))
    declared = {"left": "text1", "right": "text2", "rating": "score"}
    assert read(content, columns=declared) == [(A, B, 0.4), (C, D, 0.9)]
    assert read(content, columns={**declared, "note": "negative", "rating": None}) == [
        (A, B, C),
        (C, D, A),
    ]
    assert read(lines(None, (0.5, A, B)), columns={0: "score"}) == [(A, B, 0.5)]
    assert read(lines(None, (7, A, B)), columns={0: None}) == [(A, B)]
    assert read(lines(None, (B, 7, A)), columns={0: "text2", 1: None, 2: "text1"}) == [(A, B)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"absent": "score"}, "no such column.*'absent'"),
        ({"score": "rating"}, "no such column.*'score'"),
        ({9: "score"}, "no such column.*9"),
        ({"rating": "grade"}, "unknown role.*'rating': 'grade'"),
        ({"rating": ("yes", "no")}, "unknown classes.*yes"),
    ],
)
def test_declarations_that_do_not_fit_are_errors(read, columns, message):
    with pytest.raises(ValueError, match=message):
        read(lines(("text1", "text2", "rating"), (A, B, 1)), columns=columns)


@pytest.mark.parametrize(
    ("content", "suffix", "message"),
    [
        (f"{A}||{B}||5\n", ".txt", r"columns with '\|\|' between"),
        (f"{A}||{B}\n", ".tsv", r"2 columns with '\|\|' between"),
        (f"{A};{B};1\n{C};{D};0\n", ".txt", "columns with ';' between"),
        (f"{A},{B},1\n", ".txt", "columns with ',' between"),
        (f"{A}|{B}\n{C}|{D}\n", ".txt", r"2 columns with '\|' between"),
        (f"{A};{B}\n{C};{D}\n", ".tsv", "2 columns with ';' between"),
        (f"{A}    {B}  1\n", ".tsv", "3 columns with '  ' between"),
        ('{"text1": "a", "text2": "b", "score": 1}\n' * 2, ".txt", "look like JSON.*.jsonl"),
        (f"source\ttarget\n{A}\t{B}\n", ".tsv", "like names of columns.*'source': 'text1'"),
        (f"question1,other\n{A},{B}\n", ".csv", "like names of columns.*{0: 'text1'"),
        ("a\tb\ttoday\nc\td\t3,5\ne\tf\t4\n你好\t您好\t1\n", ".tsv", "what column 2 is"),
        (f"{A}\t{B}\t1_0\n", ".tsv", "what column 2 is.*1_0"),
        (f"text1\ttext2\tverdict\n{A}\t{B}\tsame\n", ".tsv", "the column 'verdict' holds"),
        (f"1\t{A}\t{B}\n2\t{C}\t{D}\n", ".tsv", "what column 0 is.*Received: '1'"),
        (f"1\t{A}\n2\t{C}\n", ".tsv", "what column 0 is"),
        (f"{A}\t{B}\t85%\n{C}\t{D}\t10 %\n", ".tsv", "what column 2 is.*85%"),
        (f"{A}\t{B}\t3,5\n", ".tsv", "what column 2 is.*3,5"),
        (f"{A}\t{B}\t4/5\n", ".tsv", "what column 2 is.*4/5"),
        (
            f"{A}\t{B}\t0.5\n{C}\t{D}\t3,5\n{A}\t{D}\t1\n",
            ".tsv",
            "line 2: a score, but not a plain",
        ),
        (f"text1;text2;score\n{A};{B};3,5\n", ".csv", "line 2: a score, but not a plain number"),
        (f"{A}\t{B}\tsame\n{C}\t{D}\tother\n" * 2, ".tsv", "what column 2 is.*'same'"),
        (f"{A}\t{B}\tE\n{C}\t{D}\tN\n", ".tsv", "what column 2 is.*'E'"),
        (f"q1\t{A}\t{B}\nq2\t{C}\t{D}\n", ".tsv", "what column 0 is.*'q1'"),
        (f"1\t{A}\t{B}\t7\n1\t{C}\t{D}\t8\n", ".tsv", "what column 0 is.*'1'"),
        (f"0.5\t{A}\t{B}\t1\n0.5\t{C}\t{D}\t2\n", ".tsv", "what column 0 is"),
    ],
)
def test_what_only_looks_like_a_text_is_asked_for(read, content, suffix, message):
    with pytest.raises(ValueError, match=message):
        read(content, suffix)


def test_a_line_of_words_is_an_example_where_it_is_declared_or_all_are(read):
    content = f"cats\tdogs\n{A}\t{B}\n"
    declared = read(content, ".tsv", columns={0: "text1", 1: "text2"})
    assert declared == [("cats", "dogs"), (A, B)]
    assert read(content, ".tsv", columns={"cats": "text1", "dogs": "text2"}) == [(A, B)]
    assert read("cats\tdogs\nred\tblue\n", ".tsv") == [("cats", "dogs"), ("red", "blue")]
    assert read(f"{A}; so\n{B}\n", ".txt") == [f"{A}; so", B]
    assert read(f"{A}; so\n", ".txt") == [f"{A}; so"]


def test_semicolons_separate_csv_too(read):
    assert read(f'text1;text2;score\n"{A}";{B};0.5\n', ".csv") == [(A, B, 0.5)]
    assert read(f"{A}; {C},{B},0.5\n", ".csv") == [(f"{A}; {C}", B, 0.5)]


@pytest.mark.parametrize(
    ("row", "examples"),
    [
        ({"query": A, "pos": [B, C], "neg": [D]}, [(A, B, D), (A, C, D)]),
        ({"anchor": A, "positive": B, "hard_negatives": [C, D]}, [(A, B, C, D)]),
        ({"anchor": A, "positives": [B], "negative_1": C, "negative_2": D}, [(A, B, C, D)]),
        ({"question": A, "answer": B, "id": 7}, [(A, B)]),
        ({"sent0": A, "sent1": B, "hard_neg": C}, [(A, B, C)]),
        ({"set": [A, B, C]}, [(A, B), (A, C), (B, C)]),
        ({"set": {"query": A, "pos": [B], "neg": [C]}}, [(A, B, C)]),
        ({"texts": [A, B], "label": 0.5}, [(A, B, 0.5)]),
        ([A, B], [(A, B)]),
        ([A, B, 0.5], [(A, B, 0.5)]),
        ([A, B, "0.5"], [(A, B, 0.5)]),
        ([A, B, "entailment"], [(A, B, 2.0)]),
        ([A, "true", "false"], [(A, "true", "false")]),
        ([A, "1"], [(A, "1")]),
        ({"text": A, "title": B, "id": [7]}, [A]),
        ({"set": [A, B], "id": 7}, [(A, B)]),
        ([A, B, C], [(A, B, C)]),
    ],
)
def test_groups_sets_and_arrays_are_examples(read, row, examples):
    assert read([row], ".jsonl") == examples
    assert read([row, row], ".jsonl") == examples * 2
    assert read(json.dumps([row]), ".json") == examples


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": A, "reply": B}, "cannot tell which.*'reply'"),
        ({"query": A, "pos": [], "neg": [C]}, r"no positive. Received: pos=\[\]"),
        ({"anchor": A, "positive": B, "negativ": C}, "cannot tell which.*negativ"),
        ({"text1": A, "text2": B, "text3": C}, "cannot tell which"),
        ({"set": [A]}, "a set needs two texts"),
        ({"set": {"words": A}}, "cannot tell which"),
        ([[A], B, C], "a text must be a string"),
        ([A], "two texts or more"),
        ([A, B, "85%"], "a score, but not a plain number.*85%"),
        ({"set": [A, B], "rating": 0.5}, "the column 'rating' holds numbers"),
        ({"texts": [A, B], "rating": 0.5}, "the column 'rating' holds numbers"),
        ({"text1": A, "text2": B, "scores": {"gold": 0.4}}, "the column 'scores' holds numbers"),
        ({"text1": A, "text2": B, "rating": "similar"}, "the column 'rating' holds numbers"),
        ({"text": A, "paraphrases": [B, C]}, "'paraphrases' holds texts and has no known name"),
        ({"sentence1": A, "sentence2": B, "score": 1, "label": 0}, "cannot tell which.*columns="),
    ],
)
def test_other_rows_are_errors_that_show_their_keys(read, row, message):
    with pytest.raises(ValueError, match=f"record 0: .*{message}"):
        read([row, row], ".jsonl")


def labelled(first, second, *labels):
    return [{first: A, second: B, "label": label} for label in labels]


def test_integers_of_inference_rank_entailment_highest(read, tmp_path):
    rows = labelled("premise", "hypothesis", 0, 1, 2)
    assert [score for *_, score in read(rows, ".jsonl")] == [2.0, 1.0, 0.0]
    rows = labelled("sentence1", "sentence2", 0, 1, 2)
    with pytest.raises(ValueError, match="grades or classes.*'neutral'.*values .0, 1, 2."):
        read(rows, ".jsonl")
    words = ("neutral", "entailment", "contradiction")
    found = read(rows, ".jsonl", columns={"label": words})
    assert [score for *_, score in found] == [1.0, 2.0, 0.0]
    assert [s for *_, s in read(rows, ".jsonl", columns={"label": "score"})] == [0.0, 1.0, 2.0]
    with pytest.raises(ValueError, match="not a class.*below 2.*Received: 2"):
        read(rows, ".jsonl", columns={"label": words[:2]})


@pytest.mark.parametrize("labels", [(0, 1), (-1, 0), (-1, 0, 1)])
def test_integers_whose_meaning_is_open_are_asked_for(read, labels):
    with pytest.raises(ValueError, match="grades or classes"):
        read(labelled("premise", "hypothesis", *labels), ".jsonl")


@pytest.mark.parametrize("labels", [(0, 1), (-1, 1), (0, 1, 2, 3), (1, 2), (0.0, 0.5, 2.0)])
def test_other_numbers_are_scores(read, labels):
    found = read(labelled("sentence1", "sentence2", *labels), ".jsonl")
    assert [score for *_, score in found] == list(labels)


def test_words_of_other_sets_of_inference_are_known(read):
    words = ("entails", "neutral", "non-entailment", "not_entailment")
    found = read(labelled("sentence1", "sentence2", *words), ".jsonl")
    assert [score for *_, score in found] == [2.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("names", "labels", "scores"),
    [
        (("premise", "hypothesis"), (0, -1, 2), [2.0, 0.0]),
        (("sentence1", "sentence2"), ("neutral", "-", "Entailment"), [1.0, 2.0]),
        (("sentence1", "sentence2"), ("contradiction", "-1", "entailment"), [0.0, 2.0]),
        (("question", "sentence"), ("not_entailment", "-", "entailment"), [0.0, 2.0]),
    ],
)
def test_rows_without_a_label_are_left_out_and_counted(read, tmp_path, names, labels, scores):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in labelled(*names, *labels)))
    with pytest.warns(UserWarning, match="left out: 1 of 3 rows, which have no label"):
        assert [score for *_, score in read_pairs(path)] == scores


@pytest.mark.parametrize("label", [-1, "-"])
def test_a_file_without_any_label_is_an_error(read, label):
    with pytest.raises(ValueError, match="no row has a label"):
        read(labelled("premise", "hypothesis", label, label), ".jsonl")


def test_other_encodings_are_read_when_named(tmp_path):
    path = tmp_path / "x.tsv"
    for encoding, text in (
        ("gbk", "花呗怎么还款\t如何还花呗"),
        ("utf-16", "a\tb"),
        ("cp1252", "für\twegen"),
    ):
        path.write_bytes(text.encode(encoding))
        assert read_pairs(path, encoding=encoding) == [tuple(text.split("\t"))]
        with pytest.raises(ValueError, match=f"not UTF-8 text.*encoding='{encoding}'"):
            read_pairs(path)
    with pytest.raises(ValueError, match="unknown encoding.*encoding='utf-9'"):
        read_pairs(path, encoding="utf-9")
