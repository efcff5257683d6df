"""Which files a reader passes who follows a call from the text to what it finds."""

import sys
from pathlib import Path

import pytest
from tasks.recognizers import make_recognizer, make_records
from tasks.sentences import TEXTS, make_encoder

import keras_ext

ROOT = Path(keras_ext.__file__).parent


def files_entered(call):
    """The files of the package in which a function is called, without `ops`, the vocabulary."""
    entered = set()

    def note(frame, event, argument):
        if event == "call":
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(ROOT):
                entered.add(path.relative_to(ROOT).as_posix())

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return {name for name in entered if not name.startswith("ops/")}


@pytest.mark.slow
@pytest.mark.parametrize("head", ["efficient", "full"])
def test_predict_passes_six_files(head):
    recognizer = make_recognizer(head)
    texts = [record["text"] * 3 for record in make_records()[:9]]
    recognizer.predict(texts, threshold=-20.0)  # what the model is traced from is entered once
    found = []
    entered = files_entered(lambda: found.extend(recognizer.predict(texts, threshold=-20.0)))
    assert entered == {
        "entities/recognizer.py",
        "tasks/inputs.py",
        "data/tokenizer.py",
        "data/spans.py",
        "data/batching.py",
        "entities/decoding.py",
    }
    assert all(found)


def test_encode_passes_five_files():
    sentences = make_encoder()
    sentences.encode(TEXTS)
    assert files_entered(lambda: sentences.encode(TEXTS)) == {
        "sentences/encoder.py",
        "tasks/inputs.py",
        "data/tokenizer.py",
        "sentences/vectors.py",
        "data/batching.py",
    }
