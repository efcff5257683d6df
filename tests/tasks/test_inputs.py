"""What both tasks take as texts, records, thresholds and callbacks, and what they refuse."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
from tasks.recognizers import make_recognizer, make_records
from tasks.sentences import SCORED, make_encoder

from keras_ext.tasks.inputs import as_callbacks

TEXTS = ["Ada saw Bo.", "", "Bo"]
RECORDS = make_records()[:8]


class Series:
    """As that of pandas: an index, and iteration over the values."""

    def __init__(self, values):
        self.values, self.index = values, range(len(values))

    def __iter__(self):
        return iter(self.values)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, label):
        raise KeyError(label)


class Frame(Series):
    """As that of pandas: iteration over the names of the columns."""

    columns = ("text",)


SEVERAL = {
    "list": lambda: list(TEXTS),
    "tuple": lambda: tuple(TEXTS),
    "generator": lambda: (text for text in TEXTS),
    "array of strings": lambda: np.array(TEXTS),
    "array of objects": lambda: np.array(TEXTS, object),
    "series": lambda: Series(TEXTS),
    "keys of a dict": lambda: dict.fromkeys(TEXTS).keys(),
    "records": lambda: [{"text": text, "entities": [], "id": 3} for text in TEXTS],
    "generator of records": lambda: ({"text": text} for text in TEXTS),
    "records and strings": lambda: [TEXTS[0], {"text": TEXTS[1]}, np.str_(TEXTS[2])],
}
ALONE = {
    "string": lambda: TEXTS[0],
    "NumPy string": lambda: np.str_(TEXTS[0]),
    "record": lambda: {"text": TEXTS[0], "entities": []},
}
REFUSED = {
    "None": (None, "None"),
    "number": (3, "texts=3"),
    "bytes": (b"Ada", "texts=b'Ada'"),
    "bytearray": (bytearray(b"Ada"), "bytearray"),
    "path": (Path("texts.txt"), "texts.txt"),
    "set": ({"Ada", "Bo"}, "in order"),
    "table": (Frame(TEXTS), "one column"),
    "array without axes": (np.array("Ada"), "ndarray"),
    "None in a list": (["Ada", None], r"texts\[1\]=None"),
    "NaN in a list": (["Ada", math.nan], r"texts\[1\]=nan"),
    "bytes in a list": ([b"Ada"], r"texts\[0\]=b'Ada'"),
    "array of bytes": (np.array([b"Ada"]), r"texts\[0\]"),
    "list in a list": ([["Ada"]], r"texts\[0\]=\['Ada'\]"),
    "array of rows": (np.array([["Ada"]]), r"texts\[0\]"),
    "record without text": ({"sentence": "Ada"}, '"text".*NoneType'),
    "record of numbers": ([{"text": 3}], r"texts\[0\]=3"),
}


@pytest.fixture(scope="module", params=["predict", "encode"])
def read(request):
    """The function of a task that reads texts."""
    return make_recognizer().predict if request.param == "predict" else make_encoder().encode


def equal(first, second):
    return np.array_equal(first, second) if isinstance(first, np.ndarray) else first == second


@pytest.mark.slow
@pytest.mark.parametrize("form", SEVERAL)
def test_several_texts_in_any_form(read, form):
    assert equal(read(SEVERAL[form]()), read(TEXTS))
    assert len(read(TEXTS)) == 3


@pytest.mark.parametrize("form", ALONE)
def test_one_text_in_any_form(read, form):
    found = read(ALONE[form]())
    assert equal(found, read(TEXTS[:1])[0])
    if isinstance(found, list):
        assert all(type(entity.text) is str for entity in found)


@pytest.mark.parametrize("empty", [[], (), np.array([], str), iter([])])
def test_no_texts(read, empty):
    assert len(read(empty)) == 0


@pytest.mark.parametrize("form", REFUSED)
def test_what_is_no_text(read, form):
    given, message = REFUSED[form]
    with pytest.raises(ValueError, match=message):
        read(given)


def test_texts_to_search_and_compare():
    """A query may be alone; of what is searched and compared there are several."""
    encoder = make_encoder()
    corpus = ["red car", "blue tree"]
    records = [{"text": text} for text in corpus]
    assert encoder.search({"text": "red car"}, records) == encoder.search("red car", corpus)
    assert encoder.search(np.array(corpus), iter(corpus)) == encoder.search(corpus, corpus)
    np.testing.assert_array_equal(
        encoder.similarity(records, tuple(corpus)), encoder.similarity(corpus, corpus)
    )
    for bad in ("red car", {"text": "red car"}, None, b"red", Path("corpus.txt"), [None]):
        for use in (
            lambda bad=bad: encoder.search("red car", bad),
            lambda bad=bad: encoder.similarity(bad, corpus),
            lambda bad=bad: encoder.similarity(corpus, bad),
            lambda bad=bad: encoder.whiten(bad),
            lambda bad=bad: encoder.evaluate(SCORED, corpus=bad),
        ):
            with pytest.raises(ValueError, match="Received: (corpus|first|second|texts)"):
                use()


@pytest.mark.parametrize("bad", [math.nan, "0.5", [0.0, 1.0], True, {"place": math.nan}, {"x": 0}])
def test_what_is_no_threshold(bad):
    recognizer = make_recognizer()
    for use in (recognizer.predict, recognizer.evaluate):
        with pytest.raises(ValueError, match="hreshold"):
            use(RECORDS, threshold=bad)
    with pytest.raises(ValueError, match="hreshold"):
        recognizer.threshold = bad
    assert recognizer.threshold == 0.0


@pytest.mark.parametrize("bad", ["train.jsonl", Path("train.jsonl"), b"{}", None, 3, {1, 2}])
def test_what_are_no_records(bad):
    recognizer = make_recognizer()
    recognizer.compile()
    for use in (recognizer.fit, recognizer.evaluate, recognizer.best_threshold):
        with pytest.raises(ValueError, match=r"read_records.*Received: records="):
            use(bad)
    if bad is not None:
        with pytest.raises(ValueError, match="Received: validation_records="):
            recognizer.fit(RECORDS, bad, verbose=0)


@pytest.mark.parametrize("bad", ["person", ["person", 3], None, ["person", None]])
def test_what_are_no_labels(bad):
    with pytest.raises(ValueError, match="Received: labels="):
        make_recognizer(labels=bad)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["entities", "sentences"])
def test_generators_of_records_and_examples_are_read_once(kind):
    task, data = (
        (make_recognizer(), RECORDS) if kind == "entities" else (make_encoder(), SCORED[:16])
    )
    task.compile(learning_rate=0.01)
    start = task.model.get_weights()
    arguments = {"epochs": 2, "batch_size": 8, "verbose": 0}
    expected = task.fit(data, data, **arguments).history
    task.model.set_weights(start)
    found = task.fit(iter(data), iter(data), **arguments).history
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6)


def test_a_record_alone_is_evaluated():
    recognizer = make_recognizer()
    assert recognizer.evaluate(RECORDS[0], -1.0) == recognizer.evaluate(RECORDS[:1], -1.0)
    assert recognizer.best_threshold(RECORDS[0]) == recognizer.best_threshold(iter(RECORDS[:1]))


def test_callbacks_in_any_form():
    one, other = keras.callbacks.Callback(), keras.callbacks.History()
    assert as_callbacks(None) == as_callbacks([]) == []
    assert as_callbacks(one) == as_callbacks((one,)) == as_callbacks([[one]]) == [one]
    assert as_callbacks([one, other]) == [one, other]
    for bad in (keras.callbacks.History, "history", [one, None], [print], keras.Model):
        with pytest.raises(ValueError, match="Expected Keras callbacks"):
            as_callbacks(bad)


@pytest.mark.slow
@pytest.mark.parametrize("task", [make_recognizer, make_encoder])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_weight": {0: 2.0}}, "no class belongs to an example of (records|examples)"),
        ({"sample_weight": [1.0]}, "repeat those"),
        ({"validation_data": []}, "validation_(records|examples)"),
        ({"validation_split": 0.1}, "beforehand"),
        ({"steps_per_epoch": 3}, "pass fewer"),
        ({"shuffle": False}, "seed"),
        ({"initial_epoch": 2, "epochs": 2}, "initial_epoch=2, epochs=2"),
        ({"initial_epoch": -1}, "initial_epoch=-1"),
        ({"initial_epoch": 0.5}, "initial_epoch=0.5"),
    ],
)
def test_arguments_of_keras_that_fit_does_not_have(task, arguments, message):
    with pytest.raises(ValueError, match=message):
        task().fit([], **arguments)
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch'"):
        task().fit([], epoch=3)
