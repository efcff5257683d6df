import keras
import numpy as np
import pytest

from keras_ext.data import Tokenizer
from keras_ext.models import BertEncoder, RoFormerEncoder
from keras_ext.tasks import EntityRecognizer

SIZES = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}


@pytest.fixture(scope="module")
def tokenizer(records):
    return Tokenizer.from_characters([record["text"] for record in records])


def trains(encoder, tokenizer, records, tmp_path):
    recognizer = EntityRecognizer(
        encoder, tokenizer, ["person", "place"], max_length=32, stride=8, head_size=8
    )
    recognizer.compile(learning_rate=0.01)
    history = recognizer.fit(records, epochs=3, batch_size=8, verbose=0)
    assert history.history["loss"][-1] < 0.8 * history.history["loss"][0]
    texts = [record["text"] for record in records[:4]]
    expected = recognizer.predict(texts, threshold=-3.0)
    recognizer.save(tmp_path / "bundle")
    assert EntityRecognizer.load(tmp_path / "bundle").predict(texts, threshold=-3.0) == expected


@pytest.mark.parametrize("with_pool", [False, True])
def test_bert_encoder(tokenizer, records, tmp_path, with_pool):
    encoder = BertEncoder(
        tokenizer.vocabulary_size, **SIZES, max_sequence_length=32, with_pool=with_pool
    )
    trains(encoder, tokenizer, records, tmp_path)


def test_roformer_encoder(tokenizer, records, tmp_path):
    trains(RoFormerEncoder(tokenizer.vocabulary_size, **SIZES), tokenizer, records, tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_keras_hub_backbones(tokenizer, records, tmp_path):
    keras_hub = pytest.importorskip("keras_hub")
    size = tokenizer.vocabulary_size
    bert = keras_hub.models.BertBackbone(size, 1, 2, 16, 32, max_sequence_length=32)
    trains(bert, tokenizer, records, tmp_path)
    roformer = keras_hub.models.RoformerV2Backbone(size, 1, 2, 16, 32, 8)  # no padding mask
    trains(roformer, tokenizer, records, tmp_path)


def test_padding_of_a_keras_hub_backbone_changes_nothing(tokenizer):
    keras_hub = pytest.importorskip("keras_hub")
    bert = keras_hub.models.BertBackbone(
        tokenizer.vocabulary_size, 1, 2, 16, 32, max_sequence_length=32
    )
    recognizer = EntityRecognizer(bert, tokenizer, ["person"], max_length=32, stride=8)
    alone, _ = recognizer.span_scores("Ada saw")
    texts = ["Ada saw", "Ada saw Old Rome Town."]  # the first is padded to the second
    e = recognizer.predict(texts, threshold=-1e9)[0]
    assert {round(x.score, 3) for x in e} == {
        round(float(x), 3) for x in alone[alone > -1e29].ravel()
    }


def test_encoders_that_do_not_fit(tokenizer):
    labels = ["person"]
    with pytest.raises(ValueError, match="encoder embeds 5"):
        EntityRecognizer(RoFormerEncoder(5, **SIZES), tokenizer, labels)
    short = BertEncoder(tokenizer.vocabulary_size, **SIZES, max_sequence_length=16)
    with pytest.raises(ValueError, match="positions for 16 tokens"):
        EntityRecognizer(short, tokenizer, labels, max_length=32, stride=8)
    ids = keras.Input((None,), dtype="int32")
    one_input = keras.Model(ids, keras.layers.Embedding(100, 8)(ids))
    with pytest.raises(ValueError, match="dict of inputs"):
        EntityRecognizer(one_input, tokenizer, labels)
    named = keras.Input((None,), dtype="int32", name="token_ids")
    pooled = keras.ops.mean(keras.layers.Embedding(100, 8)(named), axis=1)
    with pytest.raises(ValueError, match="one vector for each token"):
        EntityRecognizer(keras.Model({"token_ids": named}, pooled), tokenizer, labels)
    no_sequence = keras.Model({"token_ids": named}, {"pooled_output": pooled})
    with pytest.raises(ValueError, match="sequence_output"):
        EntityRecognizer(no_sequence, tokenizer, labels)


def test_an_encoder_with_only_token_ids_serves(tokenizer):
    named = keras.Input((None,), dtype="int32", name="token_ids")
    hidden = keras.layers.Embedding(tokenizer.vocabulary_size, 8)(named)
    encoder = keras.Model({"token_ids": named}, hidden)
    recognizer = EntityRecognizer(encoder, tokenizer, ["person"], max_length=32, stride=8)
    scores, _ = recognizer.span_scores("Ada")
    assert np.isfinite(scores).all()
