"""The two scripts of docs/from_bert4keras.md, on made-up data and on a made-up checkpoint."""

import functools
import json
import re
import sys

import from_bert4keras
import from_bert4keras_short
import numpy as np
import pytest

from keras_ext.bert4keras import build_transformer_model
from keras_ext.checkpoints import save_google_weights
from keras_ext.data import read_records, write_jsonl
from keras_ext.models import BigramRoFormerEncoder
from keras_ext.tasks import EntityRecognizer

pytestmark = pytest.mark.slow

PEOPLE = ("anna", "bo li", "carlo", "dina")
PLACES = ("rome", "new oslo", "lima")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "in", "met", "##na", "an", "bo", "li", "carlo", "di")
WORDS += ("rome", "new", "oslo", "lima")
CONFIG = {
    "vocab_size": len(WORDS),
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 32,
    "hidden_act": "gelu",
    "max_position_embeddings": 128,
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def sentence(rng):
    """Somebody met somebody somewhere."""
    text, entities = "", []
    for word, label in (("", "person"), (" met ", "person"), (" in ", "place")):
        name = rng.choice(PEOPLE if label == "person" else PLACES)
        start = len(text) + len(word)
        text += word + name
        entities.append({"start": start, "end": len(text), "label": label})
    return {"text": text, "entities": entities}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder with a train and a dev file, which is the working folder, too."""
    rng = np.random.default_rng(0)
    write_jsonl([sentence(rng) for _ in range(70)], tmp_path / "train.jsonl")
    write_jsonl([sentence(rng) for _ in range(20)], tmp_path / "dev.jsonl")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def weights(folder):
    """A folder as Google published it, of a tiny model."""
    (folder / "weights").mkdir()
    (folder / "weights/bert_config.json").write_text(json.dumps(CONFIG))
    (folder / "weights/vocab.txt").write_text("\n".join(WORDS) + "\n")
    base = build_transformer_model(folder / "weights/bert_config.json")
    save_google_weights(base, folder / "weights/bert_model.ckpt")
    return folder / "weights"


def run(monkeypatch, example, *arguments, **settings):
    for name, value in settings.items():
        monkeypatch.setattr(example, name, value)
    monkeypatch.setattr(sys, "argv", ["example", *map(str, arguments)])
    example.main()


def test_the_least_change_learns_without_weights(folder, monkeypatch, capsys):
    run(monkeypatch, from_bert4keras, "--data", folder, MAX_LENGTH=32, EPOCHS=5)
    scores = [float(f1) for f1 in re.findall(r"F1 (\S+),", capsys.readouterr().out)]
    assert len(scores) == 5
    assert max(scores) > 0.9


def test_the_least_change_learns_from_a_google_checkpoint(folder, weights, monkeypatch, capsys):
    files = ("--data", folder, "--weights", weights)
    run(monkeypatch, from_bert4keras, *files, MAX_LENGTH=16, EPOCHS=4, LEARNING_RATE=5e-3)
    scores = [float(f1) for f1 in re.findall(r"F1 (\S+),", capsys.readouterr().out)]
    assert max(scores) > 0.9
    assert (folder / from_bert4keras.BEST).is_file()


def test_the_short_way_learns_from_a_google_checkpoint(folder, weights, monkeypatch):
    files = ("--data", folder, "--weights", weights)
    run(monkeypatch, from_bert4keras_short, *files, EPOCHS=6, LEARNING_RATE=5e-3)
    recognizer = EntityRecognizer.load(folder / "recognizer")
    assert recognizer.evaluate(read_records(folder / "dev.jsonl")).micro.f1 > 0.9


def test_the_short_way_runs_without_weights(folder, monkeypatch, capsys):
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 16}
    encoder = functools.partial(BigramRoFormerEncoder, **sizes, bigram_buckets=50, embedding_dim=8)
    files = ("--data", folder)
    run(monkeypatch, from_bert4keras_short, *files, EPOCHS=1, BigramRoFormerEncoder=encoder)
    assert "nested only" in capsys.readouterr().out
