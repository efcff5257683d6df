"""What holds for every encoder."""

import copy
import inspect
import math
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_ext import models
from keras_ext.models import AlbertEncoder, BertEncoder

SIZES = {
    "vocabulary_size": 30,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 12,
}
UNITS = {**SIZES, "hidden_dim": 8, "key_size": 4}
del UNITS["num_heads"]
ENCODERS = {
    models.AlbertEncoder: SIZES,
    models.BertEncoder: SIZES,
    models.BigramRoFormerEncoder: SIZES,
    models.ElectraEncoder: SIZES,
    models.GAUAlphaEncoder: UNITS,
    models.GAUEncoder: UNITS,
    models.NezhaEncoder: SIZES,
    models.RoFormerEncoder: SIZES,
    models.RoFormerV2Encoder: SIZES,
}


def having(argument):
    """The encoders with an argument."""
    names = {encoder: inspect.signature(encoder.__init__).parameters for encoder in ENCODERS}
    return pytest.mark.parametrize("encoder", [e for e in ENCODERS if argument in names[e]])


every_encoder = having("name")
every_kind = pytest.mark.parametrize("encoder", [*ENCODERS, models.AlbertUnsharedEncoder])


def make(encoder, **arguments):
    """An encoder with weights that are not near 0, so that all of its parts can be seen."""
    model = encoder(**ENCODERS[encoder], **arguments)
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(size=weight.shape, scale=0.5))
    return model


def hidden(model, batch):
    output = model({name: batch[name] for name in model.input})
    return np.array(output["sequence_output"] if isinstance(output, dict) else output)


def float32(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))


@pytest.mark.slow
@every_encoder
def test_padding_changes_nothing(encoder, batch):
    model = encoder(**ENCODERS[encoder])
    padded = {name: np.pad(value, ((0, 0), (0, 3))) for name, value in batch.items()}
    padded["token_ids"][:, 6:] = 29
    padded["segment_ids"][:, 6:] = 1
    short, long = np.array(model(batch)), np.array(model(padded))[:, :6]
    # Not 1e-6: another length sums in another order, and the norms enlarge small hidden states.
    np.testing.assert_allclose(long, short, atol=1e-5)


@pytest.mark.slow
@every_encoder
def test_what_stands_at_a_masked_position_is_not_seen(encoder, batch):
    model = encoder(**ENCODERS[encoder])
    mask = batch["padding_mask"]
    other = {**batch, "token_ids": np.where(mask, batch["token_ids"], 29).astype("int32")}
    np.testing.assert_allclose(
        np.array(model(other))[mask], np.array(model(batch))[mask], atol=1e-5
    )


@pytest.mark.slow
@every_encoder
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_near_also_where_all_is_masked(encoder, policy, batch):
    batch["padding_mask"][1] = False
    exact, half = encoder(**ENCODERS[encoder]), encoder(**ENCODERS[encoder], dtype=policy)
    half.set_weights(exact.get_weights())
    output = half(batch)
    assert keras.backend.standardize_dtype(output.dtype) == half.compute_dtype != "float32"
    output = np.array(keras.ops.cast(output, "float32"))
    tolerance = 0.02 if policy == "mixed_float16" else 0.15
    np.testing.assert_allclose(output, np.array(exact(batch)), atol=tolerance)


@pytest.mark.slow
@every_encoder
def test_the_config_rebuilds_the_model(encoder):
    model = encoder(
        **ENCODERS[encoder], dropout=0.25, dtype="mixed_bfloat16", name="mine", trainable=False
    )
    config = model.get_config()
    assert ENCODERS[encoder].items() <= config.items() and config["dropout"] == 0.25
    again = encoder.from_config(config)
    assert again.get_config() == config
    assert again.name == "mine" and again.compute_dtype == "bfloat16"
    assert not again.trainable_weights and len(again.weights) == len(model.weights)


@pytest.mark.slow
@every_kind
def test_the_config_holds_every_argument(encoder):
    """Also those that `__init__` does not look at but hands on."""
    config = encoder(**ENCODERS.get(encoder, SIZES)).get_config()
    assert set(config) == set(inspect.signature(encoder).parameters)


def own_arguments(encoder):
    """The names of the arguments that a docstring explains."""
    section = inspect.cleandoc(encoder.__doc__).partition("Args:\n")[2].partition("\n\n")[0]
    entries = re.sub(r"\n {5,}", " ", section).splitlines()
    return [name for entry in entries for name in entry.partition(":")[0].strip().split(", ")]


def explained_default(encoder, name):
    """The default of an argument, where it is explained: here, or in the encoder that is named."""
    if name in own_arguments(encoder):
        return inspect.signature(encoder).parameters[name].default
    text = " ".join(encoder.__doc__.split())
    named = re.search(r"[Aa]rguments, [^.]* those of `(\w+)`", text)
    assert named, f"{name} is not explained"
    return explained_default(getattr(models, named[1]), name)


@every_kind
def test_every_argument_is_explained(encoder):
    parameters = inspect.signature(encoder).parameters
    assert set(own_arguments(encoder)) - {""} <= set(parameters)
    for name, parameter in parameters.items():
        assert explained_default(encoder, name) == parameter.default, name


@pytest.mark.slow
@every_kind
def test_the_first_block_gives_what_an_encoder_of_one_block_gives(encoder, batch):
    deep, shallow = (
        encoder(**{**ENCODERS.get(encoder, SIZES), "num_layers": n, "name": "x"}) for n in (3, 1)
    )
    for layer in shallow.layers:
        if layer.weights:
            layer.set_weights(deep.get_layer(layer.name).get_weights())
    first, last = deep.blocks[0].output, deep.blocks[-1].output
    if encoder is models.BigramRoFormerEncoder:  # normalised at the end only
        mask = keras.ops.cast(batch["padding_mask"][..., None], "float32")
        result = shallow.get_layer("Output-Norm")(keras.Model(deep.input, first)(batch)) * mask
    else:
        assert last is deep.output
        result = keras.Model(deep.input, first)(batch)
    np.testing.assert_allclose(np.array(result), hidden(shallow, batch), atol=1e-6)
    assert len(deep.blocks) == 3 and len({id(block.output) for block in deep.blocks}) == 3


@pytest.mark.slow
@every_kind
def test_the_blocks_hold_all_weights_but_those_of_the_embeddings_and_the_output(encoder):
    model = encoder(**ENCODERS.get(encoder, SIZES))
    first, last = (
        {weight.path for layer in block.layers for weight in layer.weights}
        for block in model.blocks
    )
    outside = [weight.path for weight in model.weights if weight.path not in first | last]
    assert all(re.match("Embedding-|Output-", path) for path in outside)
    assert not [path for path in first | last if path.startswith("Embedding-")]
    shared = encoder is AlbertEncoder
    assert first and last and (first == last if shared else not first & last)


@pytest.mark.slow
@every_kind
def test_an_encoder_that_is_made_anew_has_blocks_of_its_own(encoder, tmp_path):
    model = encoder(**ENCODERS.get(encoder, SIZES))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for again in (loaded, encoder.from_config(model.get_config()), copy.deepcopy(model)):
        held = [layer for block in again.blocks for layer in block.layers]
        assert len(again.blocks) == 2 and held
        assert all(any(layer is own for own in again.layers) for layer in held)
        assert len(again.layers) == len(model.layers)


@pytest.mark.slow
@every_encoder
def test_dropout_acts_in_training_only(encoder, batch):
    model = encoder(**ENCODERS[encoder], dropout=0.5)
    quiet = np.array(model(batch, training=False))
    np.testing.assert_array_equal(np.array(model(batch)), quiet)
    assert np.abs(np.array(model(batch, training=True)) - quiet).max() > 0.1


@pytest.mark.slow
@every_encoder
def test_every_weight_gets_a_gradient(encoder, batch):
    model = encoder(**ENCODERS[encoder], dropout=0.0)
    scores = keras.layers.Dense(1)(model.output)
    trainer = keras.Model(model.input, scores)
    trainer.compile(keras.optimizers.SGD(1.0), "mse")
    before = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    trainer.fit(batch, np.ones((3, 6, 1), "float32"), epochs=1, verbose=0)
    still = [
        weight.path
        for weight, old in zip(model.trainable_weights, before, strict=True)
        if np.array_equal(keras.ops.convert_to_numpy(weight), old)
    ]
    # A bias of the keys adds the same to all scores of a row.
    assert all("key/bias" in path for path in still), still


@pytest.mark.slow
def test_a_model_around_encoders_reloads_in_a_fresh_process_with_the_same_bits(batch, tmp_path):
    inputs = BertEncoder(**SIZES, name="unused").input
    hidden = [encoder(**ENCODERS[encoder], name=encoder.__name__)(inputs) for encoder in ENCODERS]
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Concatenate()(hidden)))
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "batch.npz", **batch)
    program = (
        "import keras, numpy as np, keras_ext.models, sys\n"
        "model = keras.models.load_model(sys.argv[1] + '/model.keras')\n"
        "batch = dict(np.load(sys.argv[1] + '/batch.npz'))\n"
        "np.save(sys.argv[1] + '/output.npy', np.array(model(batch)))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120)
    np.testing.assert_array_equal(np.load(tmp_path / "output.npy"), np.array(model(batch)))


@pytest.mark.slow
@having("application")
def test_a_language_model_does_not_see_what_follows(encoder, batch):
    model = make(encoder, application="lm")
    other = {**batch, "token_ids": np.where(np.arange(6) > 2, 29, batch["token_ids"])}
    before, after = hidden(model, batch), hidden(model, other)
    np.testing.assert_allclose(after[:, :3], before[:, :3], atol=1e-5)
    assert np.abs(after[:, 3] - before[:, 3]).max() > 1e-3
    assert np.abs(hidden(make(encoder), batch)[0, 0] - before[0, 0]).max() > 1e-3


@pytest.mark.slow
@having("application")
def test_unilm_sees_the_source_whole_and_the_target_up_to_the_token(encoder, batch):
    model = make(encoder, application="unilm")
    batch["padding_mask"][:] = True
    batch["segment_ids"] = np.tile([0, 0, 0, 1, 1, 1], (3, 1))

    def change(position):
        other = batch["token_ids"].copy()
        other[:, position] = (other[:, position] + 7) % 30
        change = hidden(model, {**batch, "token_ids": other}) - hidden(model, batch)
        return np.abs(change).max((0, 2)) > 1e-4

    assert change(2).all()
    assert change(4).tolist() == [False] * 4 + [True] * 2


@having("application")
def test_unilm_without_segments_is_refused(encoder):
    with pytest.raises(ValueError, match="segments"):
        encoder(**ENCODERS[encoder], application="unilm", num_segments=0)
    with pytest.raises(ValueError, match="Received: application='mlm'"):
        encoder(**ENCODERS[encoder], application="mlm")


@pytest.mark.slow
@having("num_segments")
def test_without_segments_there_is_no_such_input(encoder, batch):
    model, other = make(encoder), make(encoder, num_segments=0)
    assert "segment_ids" not in other.input and len(other.weights) == len(model.weights) - 1
    table = model.get_layer("Embedding-Segment").embeddings
    table.assign(np.zeros(table.shape))
    shared = [w for w in model.weights if "Embedding-Segment" not in w.path]
    other.set_weights([keras.ops.convert_to_numpy(weight) for weight in shared])
    np.testing.assert_allclose(hidden(other, batch), hidden(model, batch), atol=1e-6)


@pytest.mark.slow
@having("custom_position_ids")
def test_tokens_with_their_positions_may_stand_in_any_order(encoder, batch, rng):
    model, given = make(encoder), make(encoder, custom_position_ids=True)
    order = rng.permutation(6)
    shuffled = {name: value[:, order] for name, value in batch.items()}
    shuffled["position_ids"] = np.tile(order, (3, 1)).astype("int32")
    expected = hidden(model, batch)[:, order]
    np.testing.assert_allclose(hidden(given, shuffled), expected, atol=2e-5)


@pytest.mark.slow
@having("custom_position_ids")
def test_positions_may_be_fractions(encoder, batch):
    """Tables interpolate; of rotary positions only the distances matter."""
    model, places = make(encoder, custom_position_ids=True), np.arange(6)
    halves = np.tile(places / 2, (3, 1)).astype("float32")
    result = hidden(model, {**batch, "position_ids": halves})
    if any(layer.name == "Embedding-Position" for layer in model.layers):
        other, places = make(encoder, custom_position_ids=True), np.tile(places, (3, 1))
        table = other.get_layer("Embedding-Position").embeddings
        rows = keras.ops.convert_to_numpy(table)
        between = (rows[places[0] // 2] + rows[(places[0] + 1) // 2]) / 2
        table.assign(np.concatenate([between, rows[6:]]))
        expected = hidden(other, {**batch, "position_ids": places})
    else:
        expected = hidden(model, {**batch, "position_ids": halves + 7.5})
    np.testing.assert_allclose(result, expected, atol=5e-5)
    cut = hidden(model, {**batch, "position_ids": np.floor(halves)})
    assert np.abs(result - cut).max() > 1e-3


def test_fractions_are_not_rounded_in_half_precision(batch):
    """Between 1024 and 2048 the bfloat16 numbers are 8 apart."""
    arguments = {"custom_position_ids": True, "residual": "pre", "dtype": "mixed_bfloat16"}
    model, places = make(models.RoFormerEncoder, **arguments), np.arange(6.0) * 4.5
    near, far, rounded = (
        float32(model({**batch, "position_ids": np.tile(positions, (3, 1))}))
        for positions in (places, places + 1024, (places + 1024) // 8 * 8)
    )
    np.testing.assert_allclose(far, near, atol=0.02)
    assert np.abs(near - rounded).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoder",
    [
        models.NezhaEncoder,
        models.RoFormerEncoder,
        models.RoFormerV2Encoder,
        models.GAUAlphaEncoder,
        models.GAUEncoder,
    ],
)
def test_only_distances_matter_to_relative_positions(encoder, batch):
    model = make(encoder)
    later = {name: np.pad(value, ((0, 0), (3, 0))) for name, value in batch.items()}
    np.testing.assert_allclose(hidden(model, later)[:, 3:], hidden(model, batch), atol=5e-5)


@pytest.mark.slow
@having("with_mlm")
def test_the_language_model_gives_probabilities_of_the_scores_and_trains_the_table(encoder, batch):
    model, linear = make(encoder, with_mlm=True), make(encoder, with_mlm="linear")
    scores = np.array(linear(batch)["mlm"])
    assert scores.shape == (3, 6, 30)
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(np.array(model(batch)["mlm"]), expected, rtol=1e-4, atol=1e-7)
    table = linear.get_layer("Embedding-Token").embeddings
    before = keras.ops.convert_to_numpy(table)
    trainer = keras.Model(linear.input, linear.output["mlm"])
    trainer.compile(
        keras.optimizers.SGD(1.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    trainer.fit(batch, batch["token_ids"], verbose=0)
    moved = np.abs(keras.ops.convert_to_numpy(table) - before).max(1) > 0
    assert moved.all()  # each row is a class, though not all are among the inputs


def test_bert_heads_are_those_of_the_formula(batch):
    model = make(BertEncoder, with_pool=True, with_nsp=True, with_mlm="linear", embedding_dim=5)
    output = {name: np.array(value) for name, value in model(batch).items()}
    weights = {
        name: [keras.ops.convert_to_numpy(w) for w in model.get_layer(name).weights]
        for name in ("Pooler-Dense", "NSP-Proba", "MLM-Dense", "MLM-Norm", "MLM-Bias")
    }
    kernel, bias = weights["Pooler-Dense"]
    pooled = np.tanh(output["sequence_output"][:, 0] @ kernel + bias)
    np.testing.assert_allclose(output["pooled_output"], pooled, atol=1e-5)
    kernel, bias = weights["NSP-Proba"]
    odds = np.exp(pooled @ kernel + bias)
    np.testing.assert_allclose(output["nsp"], odds / odds.sum(-1, keepdims=True), atol=1e-5)
    kernel, bias = weights["MLM-Dense"]
    x = output["sequence_output"] @ kernel + bias
    x = np.array([0.5 * value * (1 + math.erf(value / 2**0.5)) for value in x.ravel()])
    x = x.reshape(3, 6, 5)
    gamma, beta = weights["MLM-Norm"]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    table = keras.ops.convert_to_numpy(model.get_layer("Embedding-Token").embeddings)
    expected = (x * gamma + beta) @ table.T + weights["MLM-Bias"][0]
    np.testing.assert_allclose(output["mlm"], expected, atol=2e-4)


def test_albert_is_a_bert_whose_blocks_are_the_same(batch):
    albert = make(AlbertEncoder, embedding_dim=5)
    assert len(make(AlbertEncoder, embedding_dim=5).weights) == len(albert.weights)
    deep = AlbertEncoder(**{**SIZES, "num_layers": 9}, embedding_dim=5)
    assert deep.count_params() == albert.count_params()
    bert = BertEncoder(**SIZES, embedding_dim=5)
    for layer in bert.layers:
        name = layer.name.replace("-0-", "-").replace("-1-", "-")
        if layer.weights:
            layer.set_weights(albert.get_layer(name).get_weights())
    np.testing.assert_allclose(hidden(bert, batch), hidden(albert, batch), atol=1e-5)


def test_hierarchical_positions_go_beyond_the_table(batch):
    short = make(BertEncoder, max_sequence_length=6)
    long = make(BertEncoder, max_sequence_length=6, hierarchical_position=0.4)
    np.testing.assert_allclose(hidden(long, batch), hidden(short, batch), atol=1e-5)
    batch = {name: np.tile(value, (1, 5)) for name, value in batch.items()}
    assert np.isfinite(hidden(long, batch)).all()
    with pytest.raises(ValueError, match="table of 6 positions"):
        short(batch)


def test_the_discriminator_gives_the_probability_of_its_score(batch):
    model = make(models.ElectraEncoder, with_discriminator=True)
    linear = make(models.ElectraEncoder, with_discriminator="linear")
    scores = np.array(linear(batch)["discriminator"])
    assert scores.shape == (3, 6, 1)
    probabilities = np.array(model(batch)["discriminator"])
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-scores)), atol=1e-5)


@pytest.mark.parametrize("size", [0, 3])
def test_a_head_count_that_does_not_divide_the_width_is_refused(size):
    with pytest.raises(ValueError, match=f"must divide the width.*hidden_dim=8, num_heads={size}"):
        BertEncoder(**{**SIZES, "num_heads": size})


def test_heads_without_channels_are_refused():
    with pytest.raises(ValueError, match="must be positive.*head_size=0"):
        BertEncoder(**SIZES, head_size=0)
