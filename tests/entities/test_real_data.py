"""The whole way on real files and real weights: read, train, evaluate, save, reload."""

import keras
import pytest

from keras_ext.checkpoints import encoder_from_huggingface
from keras_ext.data import Tokenizer, labels_of, read_records, validate
from keras_ext.models import BigramRoFormerEncoder
from keras_ext.tasks import EntityRecognizer

pytestmark = pytest.mark.slow


def test_diseases_and_chemicals_with_minilm(data_folder, minilm, tmp_path):
    train = read_records(data_folder / "bc5cdr" / "train.tsv")[:160]
    test = read_records(data_folder / "bc5cdr" / "test.tsv")[:60]
    tokenizer = Tokenizer.from_vocab(minilm / "vocab.txt")
    recognizer = EntityRecognizer(
        encoder_from_huggingface(minilm), tokenizer, labels_of(train), max_length=64, stride=16
    )
    recognizer.compile(learning_rate=3e-4)
    recognizer.fit(train, epochs=2, batch_size=4, verbose=0, on_lost="raise")
    scores = recognizer.evaluate(test)
    assert scores.micro.f1 > 0.35
    recognizer.save(tmp_path / "bundle")
    assert EntityRecognizer.load(tmp_path / "bundle").evaluate(test) == scores


@pytest.mark.parametrize(
    ("file", "labels", "entities"),
    [("cluener2020/train.json", 10, 400), ("cmeee_v2/CMeEE-V2_dev.json", 9, 800)],
)
def test_chinese_files_lose_nothing_and_are_learnt(data_folder, file, labels, entities):
    records = read_records(data_folder / file)[:200]
    tokenizer = Tokenizer.from_characters([record["text"] for record in records], min_count=1)
    names = labels_of(records)
    assert len(names) == labels
    report = validate(records, tokenizer, names, max_length=256, stride=64)
    assert report.counts["off_token_border"] == report.counts["cut_by_window"] == 0
    assert report.usable == report.entities > entities
    keras.utils.set_random_seed(0)
    encoder = BigramRoFormerEncoder(
        tokenizer.vocabulary_size,
        bigram_buckets=2000,
        num_layers=1,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=128,
        embedding_dim=32,
        dropout=0.0,
        token_dropout=0.0,
    )
    recognizer = EntityRecognizer(encoder, tokenizer, names, max_length=256, stride=64)
    recognizer.compile(learning_rate=5e-3)
    few = records[:60]
    recognizer.fit(few, epochs=15, batch_size=8, verbose=0)
    assert recognizer.evaluate(few).micro.f1 > 0.8  # learnt by heart
