import json
import tracemalloc

import pytest
from safetensors.numpy import save_file

from keras_ext import models
from keras_ext.checkpoints import (
    encoder_from_google,
    encoder_from_huggingface,
    names_in,
    save_google_weights,
)
from keras_ext.checkpoints.config_sizes import check_sizes
from keras_ext.checkpoints.huggingface_config import ENCODERS, huggingface_config
from tests.models import tiny_encoders
from tests.models.tiny_encoders import SIZES, bare, make

CHANGES = {
    "vocabulary_size": 12,
    "num_layers": 2,
    "hidden_dim": 10,
    "intermediate_dim": 13,
    "max_sequence_length": 8,
    "num_segments": 3,
    "embedding_dim": 5,
    "head_size": 5,
    "key_size": 7,
}


def of_encoder(encoder, column):
    """Its arguments and the shapes that a file of it has."""
    shapes = {}
    for row in names_in(encoder, column):
        shape = tuple(row.variable(encoder).shape)
        shapes[row.name] = shape[::-1] if row.transpose else shape
    return encoder.get_config(), shapes


@pytest.mark.parametrize("column", ["google", "huggingface"])
@pytest.mark.parametrize("kind", tiny_encoders.ENCODERS)
def test_a_file_fits_its_own_sizes_and_no_others(kind, column):
    arguments, shapes = of_encoder(bare(kind), column)
    names = {"name", "dtype", "trainable"}
    arguments = {name: value for name, value in arguments.items() if name not in names}
    check_sizes(kind, arguments, shapes, column)
    check_sizes(kind, {**arguments, "vocabulary_size": None}, shapes, column)
    if not shapes:
        return
    for name, value in CHANGES.items():
        shared = kind is models.AlbertEncoder and name == "num_layers"
        # RoFormers' and NEZHA's positions have no table; a key in GAU-alpha is no head's.
        seen = name in arguments and not shared
        if seen:
            with pytest.raises(ValueError, match="does not fit the model"):
                check_sizes(kind, {**arguments, name: value}, shapes, column)


def test_what_may_lack_is_not_asked_for():
    arguments, shapes = of_encoder(bare(models.BertEncoder, embedding_dim=None), "huggingface")
    del shapes["bert.embeddings.position_embeddings.weight"]
    sizes = {**SIZES, "num_heads": 2, "max_sequence_length": 7}
    with pytest.raises(ValueError, match="missing: bert.embeddings.position_embeddings.weight"):
        check_sizes(models.BertEncoder, sizes, shapes, "huggingface")
    check_sizes(models.BertEncoder, sizes, shapes, "huggingface", str, ("*position*",))


@pytest.mark.slow
@pytest.mark.parametrize("number", [10**5, 10**9])
@pytest.mark.parametrize("model_type", ENCODERS)
def test_a_config_of_absurd_sizes_takes_neither_time_nor_memory(tmp_path, model_type, number):
    kind = ENCODERS[model_type]
    narrow = {} if model_type != "bert" else {"embedding_dim": None}
    encoder = bare(kind, **narrow)
    _, shapes = of_encoder(encoder, "huggingface")
    rows = names_in(encoder, "huggingface")
    values = {row.name: row.variable(encoder).numpy() for row in rows}
    values = {
        row.name: values[row.name].T.copy() if row.transpose else values[row.name] for row in rows
    }
    save_file(values, tmp_path / "model.safetensors")
    config = huggingface_config(encoder)
    numbers = [name for name, value in config.items() if type(value) is int]
    unseen = {"num_attention_heads"}
    for name in set(numbers) - unseen:
        (tmp_path / "config.json").write_text(json.dumps({**config, name: number}))
        tracemalloc.start()
        with pytest.raises(ValueError, match=f"{number}|1 to 1000"):
            encoder_from_huggingface(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
        tracemalloc.stop()
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert encoder_from_huggingface(tmp_path).get_config()["num_layers"] == 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"num_hidden_layers": 10**5}, "from 1 to 1000"),
        ({"num_hidden_layers": 900}, "missing: bert/encoder/layer_1/.*, and 898 more like it"),
        ({"vocab_size": 10**9}, r"word_embeddings, expected \(1000000000, 4\), found \(11, 4\)"),
        ({"attention_head_size": 10**9}, "query/kernel, expected"),
        ({"attention_key_size": 10**9}, "query/kernel, expected"),
    ],
)
def test_a_google_config_is_compared_with_the_checkpoint(tmp_path, change, match):
    pytest.importorskip("tensorflow")
    save_google_weights(make(models.BertEncoder), tmp_path / "model.ckpt")
    sizes = {"vocab_size": 11, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8}
    sizes |= {"intermediate_size": 12, "hidden_act": "gelu", "max_position": 7}
    config = {**sizes, "embedding_size": 4, **change}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=match):
        encoder_from_google(tmp_path / "config.json", tmp_path / "model.ckpt")
