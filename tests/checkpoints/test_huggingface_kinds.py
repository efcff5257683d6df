"""What holds for all four kinds of encoders that Hugging Face has."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_ext import models
from keras_ext.checkpoints import (
    encoder_from_huggingface,
    load_huggingface_weights,
    names_in,
    read_safetensors,
    save_huggingface,
)
from tests.models import numpy_transformer
from tests.models.tiny_encoders import ENCODERS, SIZES, bare, equal, make, zeros

# What Hugging Face has not: a BERT with narrow embeddings, a pooler of a RoFormer.
KINDS = {
    models.AlbertEncoder: {},
    models.BertEncoder: {"embedding_dim": None},
    models.ElectraEncoder: {},
    models.RoFormerEncoder: {"with_pool": False, "with_nsp": False},
}
MODEL_TYPES = {kind: kind.__name__.removesuffix("Encoder").lower() for kind in KINDS}
every_kind = pytest.mark.parametrize("kind", KINDS)


def heads(kind):
    """The arguments that ask for all heads."""
    arguments = {**ENCODERS[kind], **KINDS[kind]}
    return {name: value for name, value in arguments.items() if name.startswith("with_")}


def full(kind, **arguments):
    return make(kind, **{**KINDS[kind], **arguments})


def alone(kind, **arguments):
    arguments = {"embedding_dim": KINDS[kind].get("embedding_dim", 4), **arguments}
    return bare(kind, **arguments)


def rewrite(folder, change):
    values = {name: np.array(value) for name, value in read_safetensors(folder).items()}
    change(values)
    save_file(values, folder / "model.safetensors")


def kernel(kind):
    """The name of the kernel of a query."""
    rows = names_in(full(kind), "huggingface")
    return next(row.name for row in rows if row.attribute == "query_dense.kernel")


@pytest.fixture
def saved(tmp_path):
    """Saves an encoder of a kind, with all heads, and gives it and the folder."""

    def save(kind, **arguments):
        encoder = full(kind, **arguments)
        save_huggingface(encoder, tmp_path / "saved")
        return encoder, tmp_path / "saved"

    return save


@pytest.mark.slow
@every_kind
def test_what_is_saved_comes_back_as_an_equal_encoder(kind, saved):
    arguments = {"activation": "gelu_tanh", "dropout": 0.25, "layer_norm_epsilon": 1e-3}
    encoder, folder = saved(kind, **arguments)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    again = encoder_from_huggingface(folder, **heads(kind), name=encoder.name)
    assert type(again) is kind and equal(encoder, again)
    assert again.get_config() == encoder.get_config()


@pytest.mark.slow
@every_kind
def test_the_names_have_a_prefix_beside_heads_only(kind, saved, tmp_path):
    encoder, folder = saved(kind)
    save_huggingface(alone(kind), tmp_path / "alone")
    names = {row.name for row in names_in(encoder, "huggingface")}
    assert read_safetensors(folder).keys() == names
    prefix = f"{MODEL_TYPES[kind]}."
    expected = {name.removeprefix(prefix) for name in names if name.startswith(prefix + "e")}
    assert read_safetensors(tmp_path / "alone").keys() == expected and len(expected) > 20
    content = (tmp_path / "alone" / "model.safetensors").read_bytes()
    assert b'"__metadata__":{"format":"pt"}' in content


@pytest.mark.slow
@every_kind
def test_heads_that_an_encoder_was_not_given_are_left_over(kind, saved):
    encoder, folder = saved(kind)
    report = load_huggingface_weights(alone(kind), folder)
    rows = names_in(encoder, "huggingface")
    layers = {layer.name for layer in alone(kind).layers}
    assert report.unused == tuple(sorted(row.name for row in rows if row.layer not in layers))
    assert report.missing == () and len(report.unused) > 3


@pytest.mark.slow
@every_kind
def test_frozen_layers_are_loaded(kind, saved):
    encoder, folder = saved(kind)
    again = zeros(full(kind))
    again.trainable = False
    load_huggingface_weights(again, folder)
    assert equal(encoder, again)


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda v, name: v.pop(name), "missing: {name}"),
        (lambda v, name: v.update(renamed=v.pop(name)), "missing: {name}\n.*unused: renamed"),
        (lambda v, name: v.update({name: v[name][:5]}), "shape: {name}, expected"),
    ],
    ids=["dropped", "renamed", "reshaped"],
)
def test_a_damaged_tensor_is_named_and_nothing_is_loaded(kind, saved, change, match):
    name = kernel(kind)
    _, folder = saved(kind)
    rewrite(folder, lambda values: change(values, name))
    again = zeros(full(kind))
    with pytest.raises(ValueError, match=match.format(name=name)):
        load_huggingface_weights(again, folder)
    assert not any(weight.any() for weight in again.get_weights())


@pytest.mark.slow
@every_kind
def test_a_file_that_is_cut_off_names_the_tensors_that_are_not_whole(kind, saved):
    encoder, folder = saved(kind)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1])
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    header.pop("__metadata__")
    last = max(header, key=lambda name: header[name]["data_offsets"])
    with pytest.raises(ValueError, match=f"not whole: {last}. Received"):
        encoder_from_huggingface(folder)


TIED = {
    models.AlbertEncoder: "predictions",
    models.BertEncoder: "cls.predictions",
    models.RoFormerEncoder: "cls.predictions",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TIED)
def test_copies_of_tied_weights_may_be_there_if_they_are_equal(kind, saved):
    encoder, folder = saved(kind)
    head, table = TIED[kind], f"{MODEL_TYPES[kind]}.embeddings.word_embeddings.weight"
    copies = (f"{head}.decoder.bias", f"{head}.decoder.weight")
    rewrite(
        folder,
        lambda v: v.update({copies[0]: v[f"{head}.bias"] + 0, copies[1]: v[table] + 0}),
    )
    again = zeros(full(kind))
    assert load_huggingface_weights(again, folder).unused == copies
    assert equal(encoder, again)
    for copy in copies:
        rewrite(folder, lambda v, copy=copy: v.update({copy: v[copy] + 1}))
        with pytest.raises(
            ValueError, match=f"The model is untied.*Received: {copy}, which differs"
        ):
            load_huggingface_weights(again, folder)
        # Without the head nobody looks at it.
        assert copy in load_huggingface_weights(alone(kind), folder).unused
        rewrite(folder, lambda v, copy=copy: v.update({copy: v[copy] - 1}))


def test_the_heads_of_a_generator_are_left_over(saved):
    encoder, folder = saved(models.ElectraEncoder)
    names = ("generator_lm_head.bias", "generator_predictions.dense.weight")
    rewrite(folder, lambda values: values.update(dict.fromkeys(names, np.ones(2))))
    assert load_huggingface_weights(zeros(encoder), folder).unused == names


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["roformer.", ""])
def test_the_constant_positions_of_a_roformer_are_left_over(tmp_path, prefix):
    save_huggingface(alone(models.RoFormerEncoder), tmp_path)
    values = {prefix + name: value for name, value in read_safetensors(tmp_path).items()}
    values[f"{prefix}encoder.embed_positions.weight"] = np.zeros((7, 4))
    save_file(values, tmp_path / "model.safetensors")
    report = load_huggingface_weights(alone(models.RoFormerEncoder), tmp_path)
    assert report.unused == (f"{prefix}encoder.embed_positions.weight",)


def test_a_prefix_of_the_users_own_is_put_before_the_encoder(saved):
    encoder, folder = saved(models.BertEncoder)

    def within_another(values):
        for name in [name for name in values if name.startswith("bert.")]:
            values["model.0." + name] = values.pop(name)

    rewrite(folder, within_another)
    again = encoder_from_huggingface(folder, prefix="model.0.bert.", **heads(models.BertEncoder))
    assert equal(encoder, again)


@pytest.mark.parametrize("prefix", ["", "roformer."])
def test_halves_of_rotary_channels_are_brought_together(tmp_path, batch, rng, prefix):
    """A file of a program that rotates halves gives what that program computes."""
    encoder = models.RoFormerEncoder(30, 2, 2, 8, 12, layer_norm_epsilon=1e-6)
    values = {
        row.name.removeprefix("roformer."): rng.normal(
            size=tuple(row.variable(encoder).shape)[:: -1 if row.transpose else 1], scale=0.7
        ).astype("float32")
        for row in names_in(encoder, "huggingface")
    }
    named = {prefix + name: value for name, value in values.items()}
    save_file(named, tmp_path / "model.safetensors")
    load_huggingface_weights(encoder, tmp_path, layout="half")
    output = np.array(encoder(batch))
    for i, mask in enumerate(batch["padding_mask"]):
        ids = batch["token_ids"][i], batch["segment_ids"][i]
        turn = numpy_transformer.turn_halves
        hidden = numpy_transformer.forward(values, 2, *ids, mask, epsilon=1e-6, rope=turn)
        np.testing.assert_allclose(output[i][mask], hidden[mask], atol=1e-5)
    load_huggingface_weights(encoder, tmp_path)
    assert np.abs(np.array(encoder(batch)) - output).max() > 1e-2


def test_a_layout_without_rotary_positions_and_an_unknown_one_are_refused(saved):
    encoder, folder = saved(models.BertEncoder)
    with pytest.raises(ValueError, match="Only rotary positions have a layout.*layout='half'"):
        load_huggingface_weights(encoder, folder, layout="half")
    with pytest.raises(ValueError, match="'interleaved' or 'half'. Received: layout='whole'"):
        load_huggingface_weights(encoder, folder, layout="whole")


def test_an_encoder_without_names_is_refused(tmp_path):
    encoder = models.NezhaEncoder(**SIZES, num_heads=2)
    save_file({"x": np.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="names of this encoder are not known.*NezhaEncoder"):
        load_huggingface_weights(encoder, tmp_path)
    with pytest.raises(ValueError, match="known for Bert.* only. Received: encoder=NezhaEncoder"):
        save_huggingface(encoder, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_older_shards_in_the_folder_do_not_hide_what_is_saved(tmp_path):
    encoder = alone(models.BertEncoder)
    save_huggingface(alone(models.BertEncoder), tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00001.safetensors")
    names = read_safetensors(tmp_path / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert not equal(encoder, encoder_from_huggingface(tmp_path))
    save_huggingface(encoder, tmp_path)
    assert equal(encoder, encoder_from_huggingface(tmp_path))


def test_half_precision_weights_are_saved_so_that_they_come_back(tmp_path):
    encoder = alone(models.BertEncoder, dtype="bfloat16")
    save_huggingface(encoder, tmp_path)
    again = encoder_from_huggingface(tmp_path, dtype="bfloat16")
    for old, new in zip(encoder.get_weights(), again.get_weights(), strict=True):
        assert old.dtype.name == new.dtype.name == "bfloat16"
        np.testing.assert_array_equal(old.astype("float32"), new.astype("float32"))
