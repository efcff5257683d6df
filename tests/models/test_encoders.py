"""What holds for every encoder."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_ext.models import BertEncoder, BigramRoFormerEncoder, RoFormerEncoder

SIZES = {
    "vocabulary_size": 30,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 12,
}
ENCODERS = [BertEncoder, RoFormerEncoder, BigramRoFormerEncoder]
every_encoder = pytest.mark.parametrize("encoder", ENCODERS)


@every_encoder
def test_padding_changes_nothing(encoder, batch):
    model = encoder(**SIZES)
    padded = {name: np.pad(value, ((0, 0), (0, 3))) for name, value in batch.items()}
    padded["token_ids"][:, 6:] = 29
    padded["segment_ids"][:, 6:] = 1
    short, long = np.array(model(batch)), np.array(model(padded))[:, :6]
    # Not 1e-6: another length sums in another order, and the norms enlarge small hidden states.
    np.testing.assert_allclose(long, short, atol=1e-5)


@every_encoder
def test_what_stands_at_a_masked_position_is_not_seen(encoder, batch):
    model = encoder(**SIZES)
    mask = batch["padding_mask"]
    other = {**batch, "token_ids": np.where(mask, batch["token_ids"], 29).astype("int32")}
    np.testing.assert_allclose(
        np.array(model(other))[mask], np.array(model(batch))[mask], atol=1e-5
    )


@every_encoder
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_near_also_where_all_is_masked(encoder, policy, batch):
    batch["padding_mask"][1] = False
    exact, half = encoder(**SIZES), encoder(**SIZES, dtype=policy)
    half.set_weights(exact.get_weights())
    output = half(batch)
    assert keras.backend.standardize_dtype(output.dtype) == half.compute_dtype != "float32"
    output = np.array(keras.ops.cast(output, "float32"))
    tolerance = 0.02 if policy == "mixed_float16" else 0.15
    np.testing.assert_allclose(output, np.array(exact(batch)), atol=tolerance)


@every_encoder
def test_the_config_rebuilds_the_model(encoder):
    model = encoder(**SIZES, dropout=0.25, dtype="mixed_bfloat16", name="mine", trainable=False)
    config = model.get_config()
    assert SIZES.items() <= config.items() and config["dropout"] == 0.25
    again = encoder.from_config(config)
    assert again.get_config() == config
    assert again.name == "mine" and again.compute_dtype == "bfloat16"
    assert not again.trainable_weights and len(again.weights) == len(model.weights)


@every_encoder
def test_dropout_acts_in_training_only(encoder, batch):
    model = encoder(**SIZES, dropout=0.5)
    quiet = np.array(model(batch, training=False))
    np.testing.assert_array_equal(np.array(model(batch)), quiet)
    assert np.abs(np.array(model(batch, training=True)) - quiet).max() > 0.1


@every_encoder
def test_every_weight_gets_a_gradient(encoder, batch):
    model = encoder(**SIZES, dropout=0.0)
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
    # A bias of the keys adds the same to all scores of a row, a table may hold unseen rows.
    assert all("key/bias" in path for path in still), still


def test_a_model_around_encoders_reloads_in_a_fresh_process_with_the_same_bits(batch, tmp_path):
    inputs = BertEncoder(**SIZES, name="unused").input
    hidden = [encoder(**SIZES, name=encoder.__name__)(inputs) for encoder in ENCODERS]
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
