import warnings

import pytest

from keras_ext.data import read_conll


@pytest.fixture
def read(tmp_path):
    """Read columns given as text; entities as `label:surface`."""

    def run(content, **settings):
        path = tmp_path / "x.conll"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return [
            [f"{e['label']}:{r['text'][e['start'] : e['end']]}" for e in r["entities"]]
            for r in read_conll(path, **settings)
        ]

    return run


def rows(tags):
    return "".join(f"{chr(97 + i)}\t{tag}\n" for i, tag in enumerate(tags.split()))


@pytest.mark.parametrize(
    ("scheme", "tags", "entities"),
    [
        ("BIO", "B-x I-x O B-y", ["x:a b", "y:d"]),
        ("BIO", "B-x B-x I-x", ["x:a", "x:b c"]),
        ("BIO", "B-creative-work I-creative-work", ["creative-work:a b"]),
        ("BIO", "O O", []),
        ("IOB1", "I-x I-x O I-x B-x I-y", ["x:a b", "x:d", "x:e", "y:f"]),
        ("BMES", "B-x M-x E-x S-y O B-y E-y", ["x:a b c", "y:d", "y:f g"]),
        ("BMES", "S-x S-x", ["x:a", "x:b"]),
        ("BMES", "B-x I-x E-x S-x", ["x:a b c", "x:d"]),
        ("BMES", "B-x I-x L-x U-x", ["x:a b c", "x:d"]),
    ],
)
def test_a_scheme_means_the_same_named_or_guessed(read, scheme, tags, entities):
    assert read(rows(tags), scheme=scheme) == [entities]
    assert read(rows(tags)) == [entities]


@pytest.mark.parametrize(
    ("scheme", "tags", "count", "entities"),
    [
        ("BIO", "O I-x B-x I-y I-y", 2, ["x:b", "x:c", "y:d e"]),
        ("BMES", "M-x E-x B-y O E-y S-y", 3, ["x:a b", "y:c", "y:e", "y:f"]),
        ("BMES", "B-x B-x E-x", 1, ["x:a", "x:b c"]),
    ],
)
def test_tags_out_of_order_are_repaired_and_counted(read, scheme, tags, count, entities):
    with pytest.warns(UserWarning, match=f"{count} tags do not fit the scheme {scheme}"):
        assert read(rows(tags), scheme=scheme) == [entities]


def test_columns_of_tags_are_layers_that_may_nest(read):
    content = "1 New B-org O\n2 York I-org B-place\n3 . O O\n"
    layers = read(content, token_column=1, tag_columns=(2, 3))
    assert layers == [["org:New York", "place:York"]]
    assert read(content, token_column=1, tag_columns=[-1]) == [["place:York"]]


def test_text_is_the_joined_tokens(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("中\tB-x\n国\tI-x\n人\tO\n")
    assert read_conll(path, separator="") == [
        {"text": "中国人", "entities": [{"start": 0, "end": 2, "label": "x"}]}
    ]


def test_line_ends_marks_blank_lines_and_document_lines_make_no_difference(read):
    plain = "-DOCSTART- O\n\na B-x\nb I-x\n\nc O\nd B-x\n"
    expected = [["x:a b"], ["x:d"]]
    assert read(plain) == expected
    assert read(plain.replace("\n", "\r\n")) == expected
    assert read("\ufeff" + plain) == expected
    assert read(plain.replace(" ", "\t").replace("\n\n", "\n\t\n \n\n") + "\n\n") == expected
    assert read(plain[:-1]) == expected


def test_an_entity_does_not_cross_sentences(read):
    with pytest.warns(UserWarning, match="1 tags"):
        assert read("a B-x\n\nb I-x\n", scheme="BIO") == [["x:a"], ["x:b"]]


def test_odd_tokens_stay_whole(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("#\tO\nNew\u00a0York\tB-x\na b\tI-x\n\u2028\tO\n", encoding="utf-8")
    (record,) = read_conll(path)
    assert record["text"] == "# New\u00a0York a b \u2028"
    assert record["entities"] == [{"start": 2, "end": 14, "label": "x"}]


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("", {}, "the file is empty"),
        ("\n\n", {}, "the file is empty"),
        ("-DOCSTART- O\n", {}, "no records"),
        ("a O\nb\n", {}, "line 2: wrong number of columns. Expected 2"),
        ("a O\nb O O\n", {}, "line 2: wrong number of columns"),
        ("a\tO\nb O\n", {}, "line 2: wrong number of columns"),
        ("a\tO\n\tO\n", {}, "line 2: empty token"),
        ("a\n", {}, "no such columns"),
        ("a O\n", {"tag_columns": (2,)}, "no such columns"),
        ("a O\n", {"tag_columns": ()}, "no such columns"),
        ("a O\n", {"tag_columns": (0,)}, "no such columns"),
        ("a O\nb X-per\n", {}, "line 2: malformed tag.*'X-per'"),
        ("a O\nb B-\n", {}, "line 2: malformed tag"),
        ("a O\nb B\n", {}, "line 2: malformed tag"),
        ("a NNP B-x\n", {"tag_columns": (1,)}, "line 1: malformed tag.*tag_columns.*'NNP'"),
        ("a E-x\n", {"scheme": "BIO"}, "line 1: malformed tag for scheme BIO"),
    ],
)
def test_bad_files_are_errors_with_file_and_line(read, content, settings, message):
    with pytest.raises(ValueError, match="x.conll.*" + message):
        read(content, **settings)


def test_unknown_schemes_are_errors(read):
    with pytest.raises(ValueError, match="unknown scheme.*scheme='BILOUX'"):
        read("a O\n", scheme="BILOUX")


def test_the_real_english_sets_are_read_whole_and_without_warning(data_folder):
    sizes = {
        "wnut17/wnut17train.conll": (3394, 1975),
        "wnut17/emerging.dev.conll": (1009, 836),
        "wnut17/emerging.test.annotated": (1287, 1079),
        "bc5cdr/train.tsv": (4560, 9385),
        "bc5cdr/devel.tsv": (4581, 9593),
        "bc5cdr/test.tsv": (4797, 9809),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, expected in sizes.items():
            records = read_conll(data_folder / name)
            assert (len(records), sum(len(r["entities"]) for r in records)) == expected
