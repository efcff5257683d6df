"""Numbers of NumPy as settings: they work as Python's, and what they set can be saved."""

import json

import keras
import numpy as np
import pytest

from keras_ext.tasks import EntityRecognizer, SentenceEncoder
from tests.tasks.sentences import SCORED, TEXTS, make_encoder

EAGER = keras.backend.backend() == "tensorflow"
RATES = {"learning_rate": np.float32(0.01), "weight_decay": np.float64(0.1)}
FIT = {"epochs": np.int64(1), "batch_size": np.int32(4), "seed": np.int64(3), "verbose": 0}


@pytest.mark.slow
def test_a_recognizer_with_settings_of_numpy_is_saved_and_loaded(new_recognizer, records, tmp_path):
    sizes = {"max_length": np.int64(16), "stride": np.uint8(4), "head_size": np.int32(8)}
    recognizer = new_recognizer(labels=np.array(["person", "place"]), **sizes)
    recognizer.compile(**RATES, ema_momentum=np.float32(0.5), run_eagerly=EAGER)
    recognizer.fit(records[:4], records[:2], **FIT)
    recognizer.save(tmp_path / "bundle")
    loaded = EntityRecognizer.load(tmp_path / "bundle")
    sizes = {"head": "efficient", "max_length": 16, "stride": 4, "head_size": 8}
    assert loaded.settings == {**sizes, "threshold": 0.0, "policy": recognizer.policy}
    assert loaded.labels == ["person", "place"]
    text, arguments = records[0]["text"], {"threshold": np.float32(-1), "batch_size": np.int64(2)}
    assert len(loaded.predict(text, **arguments)) == len(recognizer.predict(text, **arguments))
    assert loaded.warm_up([np.int64(9)], batch_size=np.int64(2)) == 2
    entity = loaded.predict(text, threshold=-9.0)[0]
    json.dumps([entity.start, entity.end, entity.label, entity.text, entity.score])


def test_a_sentence_encoder_with_settings_of_numpy_is_saved_and_loaded(tmp_path):
    encoder = make_encoder(max_length=np.int64(16), normalize=np.True_)
    encoder.compile(**RATES, run_eagerly=EAGER)
    encoder.fit(SCORED[:6], SCORED[:9], **FIT)
    encoder.save(tmp_path / "bundle")
    loaded = SentenceEncoder.load(tmp_path / "bundle")
    assert loaded.settings == encoder.settings
    assert type(loaded.settings["max_length"]) is int
    assert loaded.settings["normalize"] is True
    arguments = {"batch_size": np.int64(2), "truncate_dim": np.int32(8)}
    assert loaded.encode(TEXTS[:3], **arguments).shape == (3, 8)
    assert len(loaded.search("red car", TEXTS, k=np.int64(2))) == 2
    json.dumps(loaded.evaluate(SCORED[:9], k=np.int64(3)).to_dict())


@pytest.mark.parametrize("bad", [True, 16.0, np.float32(16), "16", None])
@pytest.mark.parametrize("name", ["max_length", "stride", "head_size"])
def test_sizes_of_a_recognizer_that_are_no_integers_are_refused(new_recognizer, name, bad):
    with pytest.raises(ValueError, match=f"Expected {name} to be an int.*Received: {name}="):
        new_recognizer(**{name: bad})


@pytest.mark.parametrize("labels", [["a", 1], [None], [np.int64(3)]])
def test_labels_that_are_no_strings_are_refused(new_recognizer, labels):
    with pytest.raises(ValueError, match="Labels are a list of strings. Received: labels="):
        new_recognizer(labels=labels)


def test_numbers_that_are_none_are_refused_before_any_work(new_recognizer, records):
    recognizer, encoder = new_recognizer(), make_encoder()
    for task, data in ((recognizer, records[:2]), (encoder, SCORED[:2])):
        for bad in ({"learning_rate": "0.1"}, {"weight_decay": True}, {"ema_momentum": np.nan}):
            (name,) = bad
            with pytest.raises(ValueError, match=f"Expected {name} to be a finite number"):
                task.compile(**bad)
        task.compile()
        for bad in ({"epochs": 1.0}, {"batch_size": True}, {"batch_size": 0}, {"epochs": -1}):
            (name,) = bad
            with pytest.raises(ValueError, match=f"Expected {name} to be an int"):
                task.fit(data, verbose=0, **bad)
    calls = {
        "max_length": lambda: make_encoder(max_length=16.0),
        "chunk_size": lambda: encoder.fit(SCORED, chunk_size=2.5),
        "batch_size": lambda: recognizer.predict("Ada", batch_size=2.0),
        "truncate_dim": lambda: encoder.encode("Ada", truncate_dim=2.0),
        "k": lambda: encoder.search("Ada", TEXTS, k=2.0),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"Expected {name} to be an int"):
            call()
