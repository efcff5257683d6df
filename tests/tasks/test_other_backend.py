"""Both tasks trained and used on each backend: all else of theirs is tested on TensorFlow."""

import numpy as np
import pytest

from keras_ext.tasks import EntityRecognizer, SentenceEncoder
from tests.tasks.recognizers import make_recognizer
from tests.tasks.sentences import PAIRS, TEXTS, make_encoder


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_recogniser_learns_finds_and_is_loaded(records, tmp_path, dtype):
    recognizer = make_recognizer(dtype=dtype)
    recognizer.compile(learning_rate=0.01)
    recognizer.fit(records, epochs=12, batch_size=8, verbose=0)
    found = recognizer.predict([record["text"] for record in records])
    right = 0
    for record, entities in zip(records, found, strict=True):
        spans = {(e["start"], e["end"], e["label"]) for e in record["entities"]}
        right += {(e.start, e.end, e.label) for e in entities} == spans
    assert right >= 27, right  # of 30 texts
    recognizer.save(tmp_path / "recognizer")
    again = EntityRecognizer.load(tmp_path / "recognizer")
    text = records[7]["text"]
    assert again.predict(text) == recognizer.predict(text) != []


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_sentence_encoder_learns_encodes_and_is_loaded(tmp_path, dtype):
    encoder = make_encoder(dtype=dtype)
    encoder.compile(learning_rate=0.01)

    def margin():
        """How much nearer texts of one thing are than texts of two."""
        scores = encoder.encode(TEXTS) @ encoder.encode(TEXTS).T
        things = np.array([text.split()[1] for text in TEXTS])
        alike = things[:, None] == things[None]
        return scores[alike].mean() - scores[~alike].mean()

    before = margin()
    encoder.fit(PAIRS, epochs=8, batch_size=8, verbose=0)
    assert margin() > before + 0.3
    encoder.save(tmp_path / "sentences")
    again = SentenceEncoder.load(tmp_path / "sentences")
    np.testing.assert_allclose(again.encode(TEXTS[:3]), encoder.encode(TEXTS[:3]), atol=1e-6)
