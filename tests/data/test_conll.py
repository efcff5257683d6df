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


@pytest.mark.slow
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


def test_a_blank_is_a_token_where_one_character_separates(tmp_path):
    path = tmp_path / "x.txt"
    for separator, blank in ((" ", " "), (" ", "\u3000"), ("\t", " "), ("\t", "\u00a0")):
        lines = [
            f"{token}{separator}{tag}" for token, tag in zip(f"上海{blank}好", "BIOO", strict=True)
        ]
        path.write_text("\n".join(lines).replace("B", "B-x").replace("I", "I-x"), encoding="utf-8")
        assert read_conll(path) == [
            {"text": f"上海{blank}好", "entities": [{"start": 0, "end": 2, "label": "x"}]}
        ]


def test_aligned_columns_have_any_number_of_blanks(read):
    assert read("a    NNP  B-x\nbcd  NNP  I-x\n", tag_columns=(-1,)) == [["x:a bcd"]]


@pytest.mark.parametrize(
    "comment",
    ["# id 88 domain=dev", "# id 88\tdomain=dev", "#\thttp://a.b [2011]", "# text = a b", "#", "#begin document (a); part 000", "###MEDLINE:95369245"],
)  # fmt: skip
@pytest.mark.parametrize("separator", [" ", "\t"])
def test_comments_are_no_tokens_and_hashtags_are(tmp_path, comment, separator):
    path = tmp_path / "x.conll"
    lines = [comment, "a O", "# O", "#b B-x", "", comment, comment, "#b B-x", "c O", ""]
    rows = [line if line == comment else line.replace(" ", separator) for line in lines]
    path.write_text("\n".join(rows))
    assert [record["text"] for record in read_conll(path)] == ["a # #b", "#b c"]


def test_a_comment_inside_a_sentence_is_an_error(read):
    with pytest.raises(ValueError, match="line 2: wrong number of columns"):
        read("a O\n# text = b\nb O\n")


def test_published_layouts_are_read_without_settings(read):
    conll_2003 = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\nit PRP B-NP O\n"
    assert read(conll_2003) == [["ORG:EU"]]
    multiconer = "# id 1-2 domain=dev\nSiena _ _ B-LOC\nrocks _ _ O\n\n# id 3 domain=dev\nx _ _ O\n"
    assert read(multiconer) == [["LOC:Siena"], []]
    layers = "a NNP B-org O\nb NNP I-org B-place\n"
    assert read(layers) == [["org:a b", "place:b"]]


def test_columns_that_count_the_tokens_are_not_taken_for_them(read):
    germeval = "#\thttp://a.b [2011]\n1\tSiena\tB-LOC\tO\n2\tliegt\tO\tO\n\n#\tx\n1\tda\tO\tO\n"
    with pytest.raises(ValueError, match="column 0 counts the tokens.*token_column=1"):
        read(germeval)
    assert read(germeval, token_column=1, tag_columns=(2, 3)) == [["LOC:Siena"], []]
    assert read(germeval, token_column=1) == [["LOC:Siena"], []]


def test_lone_carriage_returns_end_lines(read):
    assert read("a B-x\rb I-x\r\rc O\r") == [["x:a b"], []]
    assert read("a B-x\r\r\nb I-x\r\r\n\r\r\nc O\r\r\n") == [["x:a b"], []]
    for mixed in ("a B-x\rb I-x\r\rc O\n", "a\tB-x\rb\tI-x\n"):
        with pytest.raises(ValueError, match="line 1: line ends of two kinds"):
            read(mixed)


def test_tokens_are_joined_as_their_script_is(tmp_path):
    path = tmp_path / "x.txt"
    for tokens, text in (("上 海 iPhone", "上海iPhone"), ("In Siena 上", "In Siena 上")):
        path.write_text("".join(f"{token}\tO\n" for token in tokens.split()), encoding="utf-8")
        assert [record["text"] for record in read_conll(path)] == [text]
        assert read_conll(path, separator="_")[0]["text"] == "_".join(tokens.split())


def test_other_encodings_are_read_when_named(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes("清 B-x\n华 I-x\n".encode("gbk"))
    assert read_conll(path, encoding="gbk")[0]["text"] == "清华"
    with pytest.raises(ValueError, match="x.txt: not UTF-8 text.*encoding='gbk'"):
        read_conll(path)
