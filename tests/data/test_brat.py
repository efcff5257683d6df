import pytest

from keras_ext.data import read_brat, read_records

ANN = "T1\tPER 0 4\tMara\nT2\tLOC 14 19\tTurin\n"
ENTITIES = [{"start": 0, "end": 4, "label": "PER"}, {"start": 14, "end": 19, "label": "LOC"}]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.txt").write_text("Mara works in Turin\n", encoding="utf-8")
    (tmp_path / "a.ann").write_text(ANN, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", ["a.txt", "a.ann", ""])
def test_a_text_and_its_annotations_are_a_record(folder, name):
    expected = [{"id": "a", "text": "Mara works in Turin\n", "entities": ENTITIES}]
    assert read_records(folder / name) == read_brat(folder / name) == expected


def test_a_folder_is_read_by_name_and_a_text_may_have_no_entities(folder):
    (folder / "B.txt").write_text("Nobody")
    (folder / "B.ann").write_text("")
    found = read_brat(folder)
    assert [(record["id"], len(record["entities"])) for record in found] == [("B", 0), ("a", 2)]


def test_what_is_no_entity_is_counted(folder):
    more = "R1\tworksIn Arg1:T1 Arg2:T2\nE1\tPER:T1\nA1\tOld T1\n#1\tAnnotatorNotes T1\twhy\nT3\tPER 0 4;5 10\tMara works\n"
    (folder / "a.ann").write_text(ANN + more)
    with pytest.warns(
        UserWarning, match="1 relations, 1 events, 1 attributes, 1 entities of several"
    ):
        assert read_brat(folder)[0]["entities"] == ENTITIES


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("T1\tPER 0 3\tMara", "a.ann, record 0.*do not give the mention.*end_inclusive=True"),
        ("T1\tPER 0\tMara", "a.ann, line 1: not an entity"),
        ("T1 PER 0 4 Mara", "a.ann, line 1: not brat's"),
        ("Mara PER", "a.ann, line 1: not brat's format"),
    ],
)
def test_malformed_lines_are_errors(folder, line, message):
    (folder / "a.ann").write_text(line)
    with pytest.raises(ValueError, match=message):
        read_brat(folder / "a.ann")


def test_both_files_must_be_there(folder):
    (folder / "a.txt").unlink()
    with pytest.raises(ValueError, match="a.txt: there is no such file"):
        read_records(folder / "a.ann")
    (folder / "a.ann").unlink()
    with pytest.raises(ValueError, match="no annotations"):
        read_records(folder)


def test_texts_without_annotations_are_counted(folder):
    (folder / "b.txt").write_text("Nobody")
    with pytest.warns(UserWarning, match="left out: 1 texts without a file of annotations"):
        assert [record["id"] for record in read_brat(folder)] == ["a"]
    assert len(read_brat(folder / "a.txt")) == 1  # one file says nothing of its neighbours


def test_what_counts_otherwise_is_converted_as_the_error_says(folder):
    (folder / "a.txt").write_text("😀 Mara works in Turin\n", encoding="utf-8")
    (folder / "a.ann").write_text("T1\tPER 3 6\tMara\n")
    with pytest.raises(ValueError, match="pass unit='utf16', end_inclusive=True to read_records"):
        read_records(folder)
    (record,) = read_records(folder, unit="utf16", end_inclusive=True)
    assert record["entities"] == [{"start": 2, "end": 6, "label": "PER"}]
