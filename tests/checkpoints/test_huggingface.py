import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_ext.checkpoints import (
    encoder_from_huggingface,
    load_huggingface_weights,
    read_safetensors,
)
from tests.models import numpy_transformer

CONFIG = {
    "model_type": "bert",
    "vocab_size": 30,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_size": 8,
    "intermediate_size": 12,
    "max_position_embeddings": 9,
    "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0.25,
    "layer_norm_eps": 1e-5,
    "initializer_range": 0.02,
}


@pytest.fixture
def folder(tmp_path, tiny_bert, random_values):
    """A tiny BERT as Hugging Face saves it, with the pooler."""
    save_file(random_values(tiny_bert(with_pool=True)), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def rewrite(folder, change):
    values = {name: np.array(value) for name, value in read_safetensors(folder).items()}
    change(values)
    save_file(values, folder / "model.safetensors")
    return values


@pytest.mark.slow
def test_minilm_gives_the_hidden_states_and_sentence_vectors_of_the_formula(minilm, rng):
    encoder = encoder_from_huggingface(minilm, with_pool=True)
    values = read_safetensors(minilm)
    mask = np.array([[1] * 9, [1] * 5 + [0] * 4, [1, 1, 0, 1, 1, 1, 0, 0, 1]], bool)
    batch = {
        "token_ids": rng.integers(0, 30522, mask.shape).astype("int32"),
        "segment_ids": rng.integers(0, 2, mask.shape).astype("int32"),
        "padding_mask": mask,
    }
    output = {name: np.array(value) for name, value in encoder(batch).items()}
    for i in range(3):
        hidden = numpy_transformer.forward(
            values, 12, batch["token_ids"][i], batch["segment_ids"][i], mask[i], epsilon=1e-12
        )
        np.testing.assert_allclose(
            output["sequence_output"][i][mask[i]], hidden[mask[i]], atol=1e-4
        )
        sentence, expected = (x[mask[i]].mean(0) for x in (output["sequence_output"][i], hidden))
        sentence, expected = (x / np.linalg.norm(x) for x in (sentence, expected))
        np.testing.assert_allclose(sentence, expected, atol=1e-4)
        pooled = numpy_transformer.pool(values, hidden)
        np.testing.assert_allclose(output["pooled_output"][i], pooled, atol=1e-4)


def test_minilm_loses_only_what_the_encoder_has_not(minilm):
    encoder = encoder_from_huggingface(minilm)
    report = load_huggingface_weights(encoder, minilm)
    assert len(report.loaded) == len(encoder.weights) == 101 and report.missing == ()
    assert report.unused == (
        "embeddings.position_ids",
        "pooler.dense.bias",
        "pooler.dense.weight",
    )


def test_sizes_come_from_the_config_and_overrides_go_before(folder):
    encoder = encoder_from_huggingface(folder, dtype="mixed_bfloat16", dropout=0.5, name="mine")
    config = encoder.get_config()
    assert (config["num_heads"], config["activation"], config["layer_norm_epsilon"]) == (
        2,
        "gelu_tanh",
        1e-5,
    )
    assert (config["dropout"], config["attention_dropout"], config["name"]) == (0.5, 0.1, "mine")
    assert encoder.compute_dtype == "bfloat16"


def test_without_a_config_sizes_come_from_the_tensors_but_heads_must_be_given(folder):
    expected = encoder_from_huggingface(folder, activation="gelu").get_config()
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="give `num_heads`"):
        encoder_from_huggingface(folder)
    config = encoder_from_huggingface(folder, num_heads=2).get_config()
    for name in ("vocabulary_size", "num_layers", "hidden_dim", "intermediate_dim"):
        assert config[name] == expected[name]
    assert config["max_sequence_length"] == 9 and config["num_segments"] == 2


def test_prefix_heads_and_old_names_are_understood(folder, tmp_path):
    encoder = encoder_from_huggingface(folder)
    weights = encoder.get_weights()

    def as_in_pretraining(values):
        for name in list(values):
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            values["bert." + old.replace("LayerNorm.bias", "LayerNorm.beta")] = values.pop(name)
        values["cls.predictions.bias"] = np.zeros(30, "float32")

    rewrite(folder, as_in_pretraining)
    encoder.set_weights([np.zeros_like(weight) for weight in weights])
    report = load_huggingface_weights(encoder, folder)
    assert report.unused == (
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "cls.predictions.bias",
    )
    for old, new in zip(weights, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    with pytest.raises(ValueError, match="missing: embeddings.LayerNorm.bias"):
        load_huggingface_weights(encoder, folder, prefix="")


NAME = "encoder.layer.1.attention.self.key.weight"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda v: v.pop(NAME), f"missing: {NAME}"),
        (lambda v: v.update(renamed=v.pop(NAME)), f"missing: {NAME}\n.*unused: renamed"),
        (lambda v: v.update({NAME: v[NAME][:, :5].copy()}), f"shape: {NAME}, expected"),
        (
            lambda v: v.update({"embeddings.word_embeddings.weight": np.zeros((31, 8), "float32")}),
            r"word_embeddings.weight, expected \(30, 8\), found \(31, 8\)",
        ),
    ],
    ids=["dropped", "renamed", "reshaped", "other vocabulary"],
)
def test_a_damaged_tensor_is_named_and_nothing_is_loaded(folder, tiny_bert, change, match):
    rewrite(folder, change)
    encoder = tiny_bert()
    before = encoder.get_weights()
    with pytest.raises(ValueError, match=match):
        load_huggingface_weights(encoder, folder)
    for old, new in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_wanted_pooler_must_be_there(folder):
    rewrite(folder, lambda values: values.pop("pooler.dense.bias"))
    with pytest.raises(ValueError, match="missing: pooler.dense.bias"):
        encoder_from_huggingface(folder, with_pool=True)


def test_one_str_is_no_tuple_of_patterns(folder):
    rewrite(folder, lambda values: values.pop(NAME))
    for name in ("allow_missing", "allow_unused"):
        with pytest.raises(ValueError, match=f"tuple of patterns. Received: {name}='other.*'"):
            encoder_from_huggingface(folder, **{name: "other.*"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "config.json: not JSON"),
        ("[]", "config.json: expected a JSON object"),
        (json.dumps({"model_type": "bert"}), "lacks vocab_size, num_hidden_layers"),
        (json.dumps({**CONFIG, "model_type": "roberta"}), "model_type of 'bert', .*'roberta'"),
        (json.dumps({**CONFIG, "num_attention_heads": 3}), "must divide the width"),
        (json.dumps({**CONFIG, "num_hidden_layers": 3}), "missing: encoder.layer.2"),
    ],
)
def test_a_bad_config_is_refused(folder, text, match):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=match):
        encoder_from_huggingface(folder)


def test_weights_of_another_model_are_refused(tmp_path):
    save_file({"conv.weight": np.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="not of a BERT"):
        encoder_from_huggingface(tmp_path, num_heads=2)


def test_a_wrong_path_is_named_and_a_name_on_the_hub_told_how_to_be_downloaded(tmp_path):
    with pytest.raises(ValueError, match="download org/name --local-dir name.*folder='org/name'"):
        encoder_from_huggingface("org/name")
    with pytest.raises(ValueError, match="no such folder. Received: folder='.*absent'"):
        encoder_from_huggingface(tmp_path / "absent")
    with pytest.raises(ValueError, match="no such weight file.*model.safetensors"):
        encoder_from_huggingface(tmp_path, num_heads=2)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_pointer_in_the_place_of_a_file_is_named(folder, file):
    (folder / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match=f"(?s){file}.*git lfs pull|git lfs pull.*{file}"):
        encoder_from_huggingface(folder)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_named(folder, bad):
    rewrite(folder, lambda values: values[NAME].__setitem__((0, 0), bad))
    with pytest.raises(ValueError, match=f"values: {NAME}, 1 of 64 are not finite"):
        encoder_from_huggingface(folder)
