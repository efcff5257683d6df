import json

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_ext import models
from keras_ext.checkpoints import encoder_from_huggingface, save_huggingface
from keras_ext.checkpoints.huggingface_config import encoder_arguments, huggingface_config
from tests.models.tiny_encoders import SIZES

BASE = {
    "vocab_size": 11,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "hidden_size": 8,
    "intermediate_size": 12,
}


@pytest.mark.parametrize(
    ("model_type", "kind", "expected"),
    [
        ("bert", models.BertEncoder, {"activation": "gelu", "dropout": 0.1}),
        (
            "albert",
            models.AlbertEncoder,
            {"activation": "gelu_tanh", "dropout": 0.0, "embedding_dim": 128},
        ),
        ("electra", models.ElectraEncoder, {"embedding_dim": 128, "max_sequence_length": 512}),
        ("roformer", models.RoFormerEncoder, {"embedding_dim": None, "layer_norm_epsilon": 1e-12}),
    ],
)
def test_fields_that_lack_mean_what_hugging_face_takes_them_for(model_type, kind, expected):
    found, arguments = encoder_arguments({**BASE, "model_type": model_type})
    assert found is kind and expected.items() <= arguments.items()
    assert arguments["num_segments"] == 2 and arguments["layer_norm_epsilon"] == 1e-12
    kind(**arguments)


def test_the_fields_of_a_config_become_arguments():
    config = {
        **BASE,
        "model_type": "albert",
        "embedding_size": 6,
        "max_position_embeddings": 40,
        "type_vocab_size": 3,
        "hidden_dropout_prob": 0,
        "attention_probs_dropout_prob": 0.5,
        "hidden_act": "swish",
        "layer_norm_eps": 1e-3,
        "num_hidden_groups": 1,
        "classifier_dropout_prob": 0.1,
        "initializer_range": 0.02,
    }
    assert encoder_arguments(config)[1] == {
        "vocabulary_size": 11,
        "num_layers": 1,
        "num_heads": 2,
        "hidden_dim": 8,
        "intermediate_dim": 12,
        "embedding_dim": 6,
        "max_sequence_length": 40,
        "num_segments": 3,
        "dropout": 0,
        "attention_dropout": 0.5,
        "activation": "silu",
        "layer_norm_epsilon": 1e-3,
    }


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model_type": "roberta"}, "model_type of 'bert'.*Received: model_type='roberta'"),
        ({"model_type": ["bert"]}, r"Received: model_type=\['bert'\]"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ({"model_type": "albert", "num_hidden_groups": 2}, "Received: num_hidden_groups=2"),
        ({"model_type": "albert", "inner_group_num": 3}, "Received: inner_group_num=3"),
        ({"model_type": "roformer", "rotary_value": True}, "Received: rotary_value=True"),
        ({"is_decoder": True}, "Received: is_decoder=True"),
        (
            {"hidden_act": "quick_gelu"},
            "hidden_act to be one of.*Received: hidden_act='quick_gelu'",
        ),
        ({"hidden_act": ["gelu"]}, r"Received: hidden_act=\['gelu'\]"),
        ({"vocab_size": "11"}, "should be a positive integer. Received: vocab_size='11'"),
        ({"hidden_size": 8.0}, "Received: hidden_size=8.0"),
        ({"num_hidden_layers": 0}, "Received: num_hidden_layers=0"),
        ({"intermediate_size": True}, "Received: intermediate_size=True"),
        ({"max_position_embeddings": None}, "Received: max_position_embeddings=None"),
        ({"hidden_dropout_prob": 1.0}, r"a number in \[0, 1\). Received: hidden_dropout_prob=1.0"),
        ({"attention_probs_dropout_prob": "0.1"}, "attention_probs_dropout_prob='0.1'"),
        ({"layer_norm_eps": 0}, "a positive, finite number. Received: layer_norm_eps=0"),
    ],
)
def test_what_the_encoders_do_not_know_is_refused(change, match):
    with pytest.raises(ValueError, match=match):
        encoder_arguments({**BASE, "model_type": "bert", **change})


@pytest.mark.parametrize("field", BASE)
def test_a_lacking_size_is_named(field):
    config = {key: value for key, value in BASE.items() if key != field}
    with pytest.raises(ValueError, match=f"lacks {field}. Received: keys="):
        encoder_arguments(config, "bert")


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**BASE, "num_attention_heads": 3}))
    save_file({"x": np.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(
        ValueError, match="must divide the width. Received: hidden_dim=8, num_heads=3"
    ):
        encoder_from_huggingface(tmp_path)


@pytest.mark.parametrize("kind", [models.AlbertEncoder, models.ElectraEncoder])
def test_where_the_config_does_not_say_the_kind_the_names_do(tmp_path, kind):
    heads = {"with_mlm": True} if kind is models.AlbertEncoder else {"with_discriminator": True}
    save_huggingface(kind(**SIZES, num_heads=2, embedding_dim=4, **heads), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["model_type"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert type(encoder_from_huggingface(tmp_path)) is kind


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu", "tanh", "linear"])
def test_activations_come_back(activation):
    encoder = models.BertEncoder(**SIZES, num_heads=2, activation=activation)
    assert encoder_arguments(huggingface_config(encoder))[1]["activation"] == activation


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "arguments", "match"),
    [
        (models.BertEncoder, {"embedding_dim": 4}, "bert has no field.*embedding_dim=4"),
        (models.AlbertEncoder, {"embedding_dim": None}, "albert has no field.*embedding_dim=None"),
        (models.AlbertEncoder, {"embedding_dim": 8}, "embedding_dim=8"),
        (models.BertEncoder, {"application": "unilm"}, "application='unilm'"),
        (models.BertEncoder, {"application": "lm"}, "application='lm'"),
        (models.BertEncoder, {"head_size": 6}, "head_size=6"),
        (models.BertEncoder, {"key_size": 2}, "key_size=2"),
        (models.ElectraEncoder, {"hierarchical_position": 0.4}, "hierarchical_position=0.4"),
        (models.RoFormerEncoder, {"num_segments": 0}, "num_segments=0"),
        (models.BertEncoder, {"with_pool": "relu"}, "with_pool='relu'"),
        (models.BertEncoder, {"activation": keras.activations.mish}, "activation='mish'"),
    ],
)
def test_what_hugging_face_cannot_compute_is_not_saved(tmp_path, kind, arguments, match):
    encoder = kind(**SIZES, num_heads=2, **arguments)
    with pytest.raises(ValueError, match=match):
        save_huggingface(encoder, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_the_usual_size_of_heads_may_be_written_out():
    encoder = models.BertEncoder(**SIZES, num_heads=2, head_size=4, key_size=4)
    assert huggingface_config(encoder)["num_attention_heads"] == 2


def test_a_width_of_embeddings_that_is_not_given_is_written_out():
    encoder = models.ElectraEncoder(**SIZES, num_heads=2)
    assert huggingface_config(encoder)["embedding_size"] == 8


def test_a_pooler_that_hugging_face_has_not_is_not_lost_silently(tmp_path):
    encoder = models.RoFormerEncoder(**SIZES, num_heads=2, with_pool=True)
    with pytest.raises(ValueError, match="without a name: .*Pooler-Dense/bias"):
        save_huggingface(encoder, tmp_path / "mine")
