"""The small files that users bring, each with the right value of its README."""

import pytest

from keras_ext.data import Tokenizer, read_conll, read_pairs, read_records, validate


@pytest.fixture(scope="module")
def cases(data_folder):
    """The folder beside that of the data sets."""
    return data_folder.parent / "cases"


def mentions(records):
    """`label:mention` of all entities, a list for each record."""
    return [
        [f"{e['label']}:{r['text'][e['start'] : e['end']]}" for e in r["entities"]] for r in records
    ]


@pytest.mark.parametrize(
    ("name", "scores"), [("sick.tsv", [4.8, 2.2]), ("ids_first.tsv", [1.0, 0.0])]
)
def test_scores(cases, name, scores):
    pairs = read_pairs(cases / name)
    assert [score for *_, score in pairs] == scores
    assert all(len(text) > 3 for first, second, _ in pairs for text in (first, second))


def test_scores_of_an_unknown_name(cases):
    with pytest.raises(ValueError, match="'rating'.*columns={'rating': 'score'}"):
        read_pairs(cases / "unknown_score.jsonl")
    pairs = read_pairs(cases / "unknown_score.jsonl", columns={"rating": "score"})
    assert [score for *_, score in pairs] == [0.4, 0.9]


def test_groups(cases):
    query, *_ = read_pairs(cases / "query_pos_neg.jsonl")[0]
    assert read_pairs(cases / "query_pos_neg.jsonl") == [
        (query, "card delivery", "exchange rate"),
        (query, "card tracking", "exchange rate"),
    ]
    assert read_pairs(cases / "arrays.jsonl")[0] == ("red car", "crimson car")
    assert len(read_pairs(cases / "sets.jsonl")) == 3


def test_inference(cases):
    with pytest.warns(UserWarning, match="1 of 3 rows"):
        (*_, entailment), (*_, contradiction) = read_pairs(cases / "nli_integers.jsonl")
    assert entailment > contradiction


@pytest.mark.parametrize(
    ("name", "message"), [("bars.txt", r"'\|\|' between"), ("percent.tsv", "85%")]
)
def test_errors_of_pairs(cases, name, message):
    with pytest.raises(ValueError, match=message):
        read_pairs(cases / name)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("doccano.jsonl", ["PER:Mara", "LOC:Turin"]),
        ("doccano_entities.jsonl", ["PER:Mara"]),
        ("label_studio.json", ["LOC:Turin"]),
        ("spacy.json", ["PER:Mara"]),
    ],
)
def test_annotation_tools(cases, name, found):
    assert mentions(read_records(cases / name)) == [found]


@pytest.mark.parametrize(
    ("name", "found", "message"),
    [
        ("prodigy.jsonl", ["PER:Mara"], "1 records that were rejected"),
        ("brat.ann", ["PER:Mara", "LOC:Turin"], "1 relations"),
    ],
)
def test_annotation_tools_with_something_left_out(cases, name, found, message):
    with pytest.warns(UserWarning, match=message):
        assert mentions(read_records(cases / name)) == [found]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("utf16_offsets.jsonl", {"unit": "utf16"}, "UTF-16 units"),
        ("inclusive.jsonl", {"end_inclusive": True}, "inclusive ends"),
        ("gbk.jsonl", {"encoding": "gbk"}, "encoding='gbk'"),
    ],
)
def test_what_must_be_declared(cases, name, settings, message):
    with pytest.raises(ValueError, match=message):
        read_records(cases / name)
    assert mentions(read_records(cases / name, **settings)) == [["ORG:清华大学"]]


def test_columns(cases):
    rows = read_conll(cases / "source_lines.tsv", token_column=1, tag_columns=(2, 3))
    assert mentions(rows) == [["LOC:Siena"], ["ORG:Uni Siena", "LOC:Siena"]]
    rows = read_conll(cases / "comments.conll", tag_columns=(-1,))
    assert mentions(rows) == [["LOC:Siena"], []]
    assert [row["text"] for row in rows] == ["Siena rocks", "#siena"]
    (row,) = read_conll(cases / "wide_blank.txt")
    assert (mentions([row]), len(row["text"]), row["text"][2]) == ([["LOC:上海"]], 4, "\u3000")


def test_blanks_at_the_edges(cases):
    records = read_records(cases / "edge_blanks.jsonl")
    tokenizer = Tokenizer.from_characters([record["text"] for record in records], min_count=1)
    report = validate(records, tokenizer, ["LOC", "PER"], max_length=64, stride=8)
    assert (report.usable, report.lost, report.counts["trimmed"]) == (2, 0, 2)
