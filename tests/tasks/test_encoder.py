import json

import keras
import numpy as np
import pytest

from keras_ext.data import Tokenizer
from keras_ext.models import (
    AlbertEncoder,
    BertEncoder,
    ElectraEncoder,
    GAUAlphaEncoder,
    NezhaEncoder,
    RoFormerEncoder,
    RoFormerV2Encoder,
)
from keras_ext.models.blocks import encoder_inputs
from keras_ext.tasks import EntityRecognizer
from keras_ext.tasks.encoder import encode

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
    assert history.history["loss"][-1] < 0.85 * history.history["loss"][0]
    texts = [record["text"] for record in records[:4]]
    expected = recognizer.predict(texts, threshold=-3.0)
    recognizer.save(tmp_path / "bundle")
    assert EntityRecognizer.load(tmp_path / "bundle").predict(texts, threshold=-3.0) == expected


@pytest.mark.slow
def test_bert_encoder_with_another_output(tokenizer, records, tmp_path):
    encoder = BertEncoder(
        tokenizer.vocabulary_size, **SIZES, max_sequence_length=32, with_pool=True
    )
    trains(encoder, tokenizer, records, tmp_path)


@pytest.mark.slow
def test_roformer_encoder(tokenizer, records, tmp_path):
    trains(RoFormerEncoder(tokenizer.vocabulary_size, **SIZES), tokenizer, records, tmp_path)


def keras_hub_backbone(name, size):
    """A tiny backbone of KerasHub over `size` ids."""
    keras_hub = pytest.importorskip("keras_hub")
    make = getattr(keras_hub.models, name)
    if name == "RoformerV2Backbone":  # has no padding mask
        return make(size, 1, 2, 16, 32, 8)
    if name == "AlbertBackbone":
        return make(size, 2, 2, 8, 16, 32, max_sequence_length=32)
    return make(size, 1, 2, 16, 32, max_sequence_length=32)


every_backbone = pytest.mark.parametrize(
    "name", ["AlbertBackbone", "BertBackbone", "RoformerV2Backbone"]
)


@pytest.mark.slow
@every_backbone
@pytest.mark.filterwarnings("ignore")
def test_keras_hub_backbones(name, tokenizer, records, tmp_path):
    trains(keras_hub_backbone(name, tokenizer.vocabulary_size), tokenizer, records, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AlbertBackbone", "BertBackbone"])
def test_padding_of_a_keras_hub_backbone_changes_nothing(name, tokenizer):
    backbone = keras_hub_backbone(name, tokenizer.vocabulary_size)
    recognizer = EntityRecognizer(backbone, tokenizer, ["person"], max_length=32, stride=8)
    alone, _ = recognizer.span_scores("Ada saw")
    texts = ["Ada saw", "Ada saw Old Rome Town."]  # the first is padded to the second
    e = recognizer.predict(texts, threshold=-1e9)[0]
    assert {round(x.score, 3) for x in e} == {
        round(float(x), 3) for x in alone[alone > -1e29].ravel()
    }


def test_an_encoder_that_lets_padding_change_its_output_is_warned_of(tokenizer):
    # KerasHub 0.32 masks the queries at padding in place of the keys.
    backbone = keras_hub_backbone("RoformerV2Backbone", tokenizer.vocabulary_size)
    with pytest.warns(UserWarning, match="roformer_v2_backbone.*lets padding change"):
        EntityRecognizer(backbone, tokenizer, ["person"], max_length=32, stride=8)


def test_an_encoder_that_takes_0_for_padding_needs_a_tokenizer_that_pads_with_0(tokenizer):
    vocabulary = json.loads(tokenizer.to_json())
    last = tokenizer.vocabulary_size - 1
    ids = vocabulary["model"]["vocab"]
    swapped = next(token for token, i in ids.items() if i == last)
    ids["[PAD]"], ids[swapped] = last, 0
    for token in vocabulary["added_tokens"]:
        token["id"] = ids[token["content"]]
    other = Tokenizer.from_json(json.dumps(vocabulary))
    assert other.pad_id == last
    backbone = keras_hub_backbone("RoformerV2Backbone", tokenizer.vocabulary_size)
    with pytest.raises(ValueError, match=f"pads with 0. Received: pad_id={last}"):
        EntityRecognizer(backbone, other, ["person"], max_length=32, stride=8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoder",
    [AlbertEncoder, ElectraEncoder, GAUAlphaEncoder, NezhaEncoder, RoFormerV2Encoder],
)
def test_every_encoder_serves(encoder, tokenizer, records, tmp_path):
    sizes = {**SIZES, "key_size": 8} if encoder is GAUAlphaEncoder else SIZES
    if encoder is GAUAlphaEncoder:
        sizes = {name: sizes[name] for name in sizes if name != "num_heads"}
    trains(encoder(tokenizer.vocabulary_size, **sizes), tokenizer, records, tmp_path)


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


def test_a_model_that_does_not_tell_its_blocks_has_no_first_one():
    """A number in the names of our layers is not looked at; blocks can be told."""
    encoder = BertEncoder(30, **SIZES)
    model = keras.Model(encoder.input, encoder.output)
    with pytest.raises(ValueError, match="first of its `blocks`.*'transformer_layer_0'"):
        encode(model, encoder_inputs(), first=True)
    model.blocks = encoder.blocks
    assert [tuple(x.shape) for x in encode(model, encoder_inputs(), first=True)] == [
        (None, None, 16)
    ] * 2
