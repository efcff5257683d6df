"""What earlier versions saved still loads and computes the same, wherever its modules stand now.

tests/golden/saved.tar.xz was written before the modules moved into rooms of their own: a `.keras`
file of every row of the sweep with its inputs and outputs, a bundle of each task, and what the two
said of a text.
"""

import json
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest
from reload_saved import outputs_of

from keras_ext.tasks import EntityRecognizer, SentenceEncoder

ARCHIVE = Path(__file__).with_name("golden") / "saved.tar.xz"
with tarfile.open(ARCHIVE) as archive:
    MODELS = sorted(name for name in archive.getnames() if name.count("/") == 0)
MODELS = [name for name in MODELS if name.endswith(".keras")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_model_computes_what_it_did(name, folder):
    path = folder / name
    inputs = dict(np.load(path.with_suffix(".inputs.npz")))
    outputs = outputs_of(keras.saving.load_model(path), inputs)
    expected = dict(np.load(path.with_suffix(".outputs.npz")))
    assert outputs.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(outputs[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


def test_the_bundles_say_what_they_did(folder):
    expected = json.loads((folder / "expected.json").read_text("utf-8"))
    recognizer = EntityRecognizer.load(folder / "recognizer")
    assert recognizer.policy == "flat" and recognizer.threshold == {"person": -0.5, "place": -1.0}
    found = recognizer.predict(expected["text"])
    assert [[e.start, e.end, e.label] for e in found] == [e[:3] for e in expected["entities"]]
    scores = [e[3] for e in expected["entities"]]
    np.testing.assert_allclose([e.score for e in found], scores, rtol=1e-4)
    vector = SentenceEncoder.load(folder / "sentences").encode(expected["text"])
    np.testing.assert_allclose(vector, expected["vector"], rtol=1e-4)
