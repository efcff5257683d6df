import json

import keras
import numpy as np
import pytest

from keras_ext.bert4keras import build_transformer_model
from keras_ext.checkpoints import encoder_from_google, save_google_weights, save_huggingface
from keras_ext.checkpoints.tensorflow_checkpoint import read_tensors, tensor_names
from keras_ext.models import AlbertEncoder, AlbertUnsharedEncoder

CONFIG = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.2,
    "hidden_size": 8,
    "intermediate_size": 12,
    "max_position_embeddings": 9,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": 30,
}


@pytest.fixture
def paths(tmp_path):
    """A config and a checkpoint of an ALBERT with all heads."""
    config = tmp_path / "albert_config.json"
    config.write_text(json.dumps({**CONFIG, "embedding_size": 6}))
    encoder = encoder_from_google(config, model="albert", with_nsp=True, with_mlm=True)
    rng = np.random.default_rng(0)
    for weight in encoder.weights:
        weight.assign(rng.normal(size=weight.shape, scale=0.5))
    save_google_weights(encoder, tmp_path / "albert_model.ckpt")
    return config, tmp_path / "albert_model.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["albert", "albert_unshared", "ALBERT_Unshared"])
def test_it_is_the_model_of_bert4keras_with_inputs_by_name(paths, batch, model):
    encoder = encoder_from_google(*paths, model=model)
    assert type(encoder) is (AlbertEncoder if model == "albert" else AlbertUnsharedEncoder)
    assert encoder.dropout == 0.2
    flat = build_transformer_model(*paths, model=model)
    ids = np.maximum(batch["token_ids"], 1)
    batch = {**batch, "token_ids": ids, "padding_mask": np.ones(ids.shape, bool)}
    expected = np.array(flat([ids, batch["segment_ids"]]))
    np.testing.assert_allclose(np.array(encoder(batch)), expected, atol=1e-6)


@pytest.mark.parametrize("model", ["albert", "albert_unshared"])
def test_names_are_kept_in_a_keras_file(paths, tmp_path, model):
    heads = {"with_nsp": True, "with_mlm": True}
    encoder_from_google(*paths, model=model, **heads).save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras")
    save_google_weights(loaded, tmp_path / "again.ckpt")
    names = tensor_names(paths[1])
    assert tensor_names(tmp_path / "again.ckpt") == names
    again = read_tensors(tmp_path / "again.ckpt", names)
    for name, expected in read_tensors(paths[1], names).items():
        np.testing.assert_array_equal(again[name], expected)


def test_what_the_file_of_an_albert_has_no_place_for(paths, tmp_path):
    encoder = encoder_from_google(*paths, model="albert_unshared")
    with pytest.raises(ValueError, match="format is known for .* Received: encoder=AlbertUnshared"):
        save_huggingface(encoder, tmp_path / "folder")
    kernel = encoder.get_layer("Transformer-1-FeedForward").intermediate_dense.kernel
    kernel.assign(kernel + 1)
    with pytest.raises(ValueError, match="shared by different weights"):
        save_google_weights(encoder, tmp_path / "again.ckpt")


def test_the_vocabulary_can_be_changed_on_the_way(paths):
    whole = encoder_from_google(*paths, model="albert", with_mlm=True)
    kept = encoder_from_google(
        *paths, model="albert", with_mlm=True, keep_tokens=[4, 0, 7], compound_tokens=[[0, 2]]
    )
    for layer in ("Embedding-Token", "MLM-Bias"):
        rows, found = (model.get_layer(layer).get_weights()[0] for model in (whole, kept))
        expected = [rows[4], rows[0], rows[7], (rows[4] + rows[7]) / 2]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_arguments_go_before_the_config_and_ours_are_among_them(paths):
    encoder = encoder_from_google(
        *paths, model="albert", gelu="tanh", dropout_rate=0.4, dtype="mixed_bfloat16", name="mine"
    )
    assert (encoder.dropout, encoder.name, encoder.compute_dtype) == (0.4, "mine", "bfloat16")
    assert encoder.get_config()["activation"] == "gelu_tanh"
    with pytest.raises(ValueError, match="Unknown argument.*Received: dropout_rates=0.1"):
        encoder_from_google(*paths, model="albert", dropout_rates=0.1)
    dropping = encoder_from_google(*paths, model="albert", column_dropout=0.15)
    assert dropping.column_dropout == 0.15
    with pytest.raises(ValueError, match="column_dropout"):
        encoder_from_google(*paths, model="albert", column_dropout=1.5)


def test_weights_that_are_not_in_the_checkpoint_are_reported(paths):
    config, checkpoint = paths
    save_google_weights(encoder_from_google(config, model="albert"), checkpoint)
    with pytest.warns(UserWarning, match="random therefore: bert/pooler/dense/bias, bert/pooler"):
        encoder_from_google(*paths, model="albert", with_pool=True, ignore_invalid_weights=True)
    encoder_from_google(*paths, model="albert", ignore_invalid_weights=True)  # warns of nothing
    # The relative positions of a NEZHA are in no checkpoint.
    save_google_weights(encoder_from_google(config, model="nezha"), checkpoint)
    encoder_from_google(*paths, model="nezha", ignore_invalid_weights=True)
