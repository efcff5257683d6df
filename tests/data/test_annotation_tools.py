"""Exports of annotation tools, and what looks like one and is none."""

import json
import warnings

import pytest

from keras_ext.data import read_records

TEXT = "Mara works in Turin"
MARA = {"start": 0, "end": 4, "label": "PER"}
TURIN = {"start": 14, "end": 19, "label": "LOC"}


@pytest.fixture
def read(tmp_path):
    """Entities of the records of a file that holds these rows of JSON."""

    def run(*rows, suffix=".jsonl", **settings):
        path = tmp_path / f"file{suffix}"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return [record.get("entities") for record in read_records(path, **settings)]

    return run


def row(**more):
    return {"text": TEXT, **more}


def offsets(first, last, label, **more):
    return {"start_offset": first, "end_offset": last, "label": label, **more}


def task(*results, data=None, **more):
    annotation = {"result": list(results), **more}
    return {"id": 3, "data": data or {"text": TEXT}, "annotations": [annotation]}


def labels(start, end, *names):
    value = {"start": start, "end": end, "text": TEXT[start:end], "labels": list(names)}
    return {"type": "labels", "from_name": "label", "value": value}


BOTH = {
    "own": row(entities=[MARA, TURIN]),
    "doccano": row(label=[[0, 4, "PER"], [14, 19, "LOC"]], Comments=[]),
    "doccano, plural": row(labels=[[0, 4, "PER"], [14, 19, "LOC"]]),
    "doccano, with relations": row(
        entities=[offsets(0, 4, "PER", id=1), offsets(14, 19, "LOC", id=2)], relations=[]
    ),
    "doccano, first version": {"data": TEXT, "label": [[0, 4, "PER"], [14, 19, "LOC"]]},
    "prodigy": row(
        spans=[{**MARA, "token_start": 0, "token_end": 0}, TURIN],
        tokens=[{"text": "Mara", "start": 0, "end": 4, "id": 0}],
        answer="accept",
    ),
    "label studio": task(labels(0, 4, "PER"), labels(14, 19, "LOC")),
    "label studio, another key": task(labels(0, 4, "PER"), labels(14, 19, "LOC"), data={"s": TEXT}),
    "label studio, minimal": row(
        id=3, label=[labels(0, 4, "PER")["value"], labels(14, 19, "LOC")["value"]], annotator=1
    ),
    "spacy": [TEXT, {"entities": [[0, 4, "PER"], [14, 19, "LOC"]]}],
    "spacy, an object": row(entities=[[0, 4, "PER"], [14, 19, "LOC"]]),
    "spacy, a document": row(
        ents=[MARA, TURIN], tokens=[{"id": 0, "start": 0, "end": 4, "tag": "N"}], sents=[]
    ),
    "spacy, an annotator": {
        "classes": ["PER"],
        "annotations": [[TEXT, {"entities": [[0, 4, "PER"], [14, 19, "LOC"]]}]],
    },
    "cluener": row(label={"PER": {"Mara": [[0, 3]]}, "LOC": {"Turin": [[14, 18]]}}),
    "cmeee": row(
        entities=[
            {"start_idx": 0, "end_idx": 3, "type": "PER", "entity": "Mara"},
            {"start_idx": 14, "end_idx": 18, "type": "LOC"},
        ]
    ),
    "hugging face, pipeline": row(
        entities=[
            {"entity_group": "PER", "start": 0, "end": 4, "word": "Mara", "score": 0.9},
            {"entity_group": "LOC", "start": 14, "end": 19, "word": "Turin", "score": 0.9},
        ]
    ),
}


@pytest.mark.parametrize("tool", BOTH)
def test_exports_say_what_was_annotated(read, tool):
    assert read(BOTH[tool]) == [[MARA, TURIN]]
    if tool != "spacy, an annotator":
        assert read([BOTH[tool]] * 2, suffix=".json") == [[MARA, TURIN]] * 2


def test_one_place_with_two_labels_is_two_entities(read):
    assert read(task(labels(0, 4, "PER", "ORG"))) == [[MARA, {**MARA, "label": "ORG"}]]


@pytest.mark.parametrize(
    ("rows", "entities", "message"),
    [
        ([row(spans=[MARA], answer="accept"), row(spans=[TURIN], answer="reject")], [[MARA]], "1 records that were rejected"),
        ([row(spans=[MARA], answer="accept"), row(answer="ignore")], [[MARA]], "1 records that were"),
        ([row(entities=[MARA], relations=[{"id": 1}, {"id": 2}])], [[MARA]], "2 relations"),
        ([task(labels(0, 4, "PER"), {"type": "relation"})], [[MARA]], "1 results that label no span"),
        ([task(labels(0, 4, "PER")), {**task(), "annotations": [], "predictions": [1]}], [[MARA], None], "1 predictions of a model"),
        ([{**task(labels(0, 4, "PER")), "annotations": task(labels(0, 4, "PER"))["annotations"] * 2}], [[MARA]], "1 second annotations"),
    ],
)  # fmt: skip
def test_what_is_known_and_not_read_is_counted(tmp_path, rows, entities, message):
    path = tmp_path / "file.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.warns(UserWarning, match=f"file.jsonl: left out: {message}"):
        assert [record.get("entities") for record in read_records(path)] == entities


def test_annotated_as_empty_differs_from_not_annotated(read):
    assert read(row(label=[]), row(spans=[], answer="accept"), row(answer="accept")) == [[]] * 3
    assert read(task()) == [[]]
    assert read(row(), row(meta={"source": "x"}, id=4), {**task(), "annotations": []}) == [None] * 3
    assert read(task(labels(0, 4, "PER"), was_cancelled=True)) == [None]
    assert read(row(options=[{"id": 1}], accept=[1], answer="accept")) == [None]
    assert read(row(metadata={"offset": 3}, start=0, end=19, title="x")) == [None]
    assert read(row(label=[], tags=["news"], ner={"model": ["x"]})) == [[]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (row(ner=[[0, 4, "PER"]]), "unknown key.*Received: ner="),
        (row(ner=[{"begin": 0, "stop": 4, "tag": "PER"}]), "unknown key.*Received: ner="),
        (row(mentions={"PER": [[0, 4]]}), "unknown key.*Received: mentions="),
        (row(ner_tags=["B-PER", "O", "O", "B-LOC"]), "unknown key.*Received: ner_tags="),
        (row(tokens=TEXT.split(), ner_tags=[1, 0, 0, 5]), "unknown key.*Received: ner_tags="),
        (row(ner=json.dumps([[0, 4, "PER"]])), "unknown key.*Received: ner="),
        (row(tags="B-PER O O B-LOC"), "unknown key.*Received: tags="),
        (row(ner={"PER": ["Mara"]}), "unknown key.*Received: ner="),
        (row(mentions=[{"name": "Mara", "type": "PER"}]), "unknown key.*Received: mentions="),
        (row(spo_list=[{"subject": "Mara"}]), "unknown key.*Received: spo_list="),
        (row(annotation=[{"label": ["PER"], "points": [MARA]}]), "unknown key.*annotation="),
        (row(found=[{"entity_index": {"begin": 0, "end": 4}}]), "unknown key.*Received: found="),
        (row(points={"entities": [MARA]}), "unknown key.*Received: points="),
        (row(ents=[], spans={"sc": [MARA]}), "unknown key.*Received: spans="),
        (row(start=0, end=4, type="PER"), "unknown key.*Received: start=0"),
        (row(entities=[MARA], label=[[14, 19, "LOC"]]), "several keys.*'entities', 'label'"),
        (row(label="sports"), '"label" must be a list of entities. A class of the whole text'),
        (row(label=3), '"label" must be a list of entities'),
        (row(entities=[{"from": 0, "to": 4, "label": "PER"}]), "no start in"),
        (row(entities=[{"start": 0, "end": 4}]), "no label in"),
        (row(entities=[[0, 4]]), "must be a dict with start, end and label, or a list"),
        (row(labels=["B-PER", "O"]), "must be a dict with start, end and label"),
        (row(label=[["PER", 0, 4]]), '"start" of an entity must be an int'),
        (row(entities=[{**MARA, "start": 0.0}]), '"start" of an entity must be an int'),
        (row(entities=[{**MARA, "start": True}]), '"start" of an entity must be an int'),
        (row(entities=[{"start_idx": 0, "type": "PER"}]), "not a CMeEE entity"),
        (row(label={"PER": {"Mara": [0, 3]}}), "not a record of a known form"),
        ({"data": {"a": "x", "b": "y"}, "annotations": []}, r"needs its text, as data\[\"text\"\]"),
        ({"data": {"text": "x"}, "annotations": 3}, '"annotations" of a task must be a list'),
        ({"tokens": ["Mara"], "ner_tags": [0]}, '"text" must be a str'),
    ],
)
def test_what_is_not_understood_is_an_error_that_names_the_key(read, given, message):
    with pytest.raises(ValueError, match=f"file.jsonl, record 1: .*{message}"):
        read(row(entities=[]), given)


def test_further_keys_are_kept(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row(id=7, source="x", label=[[0, 4, "PER"]])))
    assert read_records(path) == [{**row(id=7, source="x"), "entities": [MARA]}]
