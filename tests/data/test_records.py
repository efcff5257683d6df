import copy

import numpy as np
import pytest

from keras_ext.data import check_records, labels_of

GOOD = {
    "text": "Ada",
    "id": "a",
    "x": 1,
    "entities": [{"start": 0, "end": 3, "label": "p", "y": 2}],
}


def test_good_records_come_back_as_copies_with_all_keys():
    given = [copy.deepcopy(GOOD)]
    checked = check_records(given)
    assert checked == [GOOD]
    checked[0]["entities"][0]["start"] = 9
    checked[0]["text"] = ""
    assert given == [GOOD]


def test_integers_of_numpy_become_python_integers():
    entity = {"start": np.int64(0), "end": np.int32(3), "label": "p"}
    checked = check_records([{"text": "Ada", "entities": [entity]}])
    assert type(checked[0]["entities"][0]["start"]) is int


def test_spans_are_not_judged():
    entity = {"start": 9, "end": -1, "label": "p"}
    assert check_records([{"text": "", "entities": [entity]}])[0]["entities"] == [entity]


def test_entities_may_be_absent_only_without_labels():
    assert check_records([{"text": "Ada"}], labelled=False) == [{"text": "Ada"}]
    with pytest.raises(ValueError, match='"entities" must be a list'):
        check_records([{"text": "Ada"}])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("Ada", "must be a dict"),
        ({}, '"text" must be a str'),
        ({"text": None, "entities": []}, '"text" must be a str'),
        ({"text": b"Ada", "entities": []}, '"text" must be a str'),
        ({"text": "Ada", "entities": None}, '"entities" must be a list'),
        ({"text": "Ada", "entities": {"start": 0}}, '"entities" must be a list'),
        ({"text": "Ada", "entities": ["x"]}, "an entity must be a dict"),
        ({"text": "Ada", "entities": [{"end": 3, "label": "p"}]}, '"start" of an entity'),
        ({"text": "Ada", "entities": [{"start": 0, "label": "p"}]}, '"end" of an entity'),
        ({"text": "Ada", "entities": [{"start": 0, "end": 3.0, "label": "p"}]}, '"end" of'),
        ({"text": "Ada", "entities": [{"start": True, "end": 3, "label": "p"}]}, '"start" of'),
        ({"text": "Ada", "entities": [{"start": 0, "end": 3, "label": 1}]}, '"label" of'),
    ],
)
def test_malformed_records_are_named(record, message):
    if isinstance(record, dict):
        record = {"id": "x7", **record}
    name = r"dev, record 1( \(id='x7'\))?: .*"
    with pytest.raises(ValueError, match=name + message):
        check_records([GOOD, record], source="dev")


def test_no_records_are_an_error():
    with pytest.raises(ValueError, match="dev: no records"):
        check_records([], source="dev")


def test_labels_are_sorted_and_unlabelled_records_add_none():
    spans = [{"start": 0, "end": 1, "label": label} for label in "bca"]
    assert labels_of([{"text": "a", "entities": spans}, {"text": "b"}]) == ["a", "b", "c"]
