"""Tokens that are taken away: how many, which, and that attention cannot tell how."""

import itertools

import keras
import numpy as np
import pytest
from gradients import to_numpy
from keras import ops

from keras_ext.layers.drop_token import DropToken
from keras_ext.models import (
    AlbertEncoder,
    BertEncoder,
    BigramRoFormerEncoder,
    ElectraEncoder,
    GAUAlphaEncoder,
    GAUEncoder,
    NezhaEncoder,
    RoFormerEncoder,
    RoFormerV2Encoder,
)

RNG = np.random.default_rng(0)
LENGTHS = np.array([12, 7, 1, 0])
MASK = np.arange(12) < LENGTHS[:, None]
IDS = np.where(MASK, RNG.integers(1, 30, MASK.shape), 0).astype("int32")
TRANSFORMER = {"num_heads": 2, "intermediate_dim": 24}
ENCODERS = {
    BertEncoder: {**TRANSFORMER, "custom_position_ids": True},
    AlbertEncoder: {**TRANSFORMER, "custom_position_ids": True},
    ElectraEncoder: TRANSFORMER,
    NezhaEncoder: TRANSFORMER,
    RoFormerEncoder: {**TRANSFORMER, "custom_position_ids": True},
    RoFormerV2Encoder: {**TRANSFORMER, "custom_position_ids": True},
    GAUEncoder: {"key_size": 8, "custom_position_ids": True},
    GAUAlphaEncoder: {"key_size": 8, "intermediate_dim": 24, "custom_position_ids": True},
    BigramRoFormerEncoder: TRANSFORMER,
}
PLACED = [cls for cls, arguments in ENCODERS.items() if "custom_position_ids" in arguments]


def encoder_of(cls, **arguments):
    arguments = {"dropout": 0.0, **ENCODERS[cls], **arguments}
    if cls is not BigramRoFormerEncoder:
        arguments = {"attention_dropout": 0.0, "num_segments": 0, **arguments}
    else:
        arguments = {"token_dropout": 0.0, "embedding_dim": 8, "bigram_buckets": 9, **arguments}
    keras.utils.set_random_seed(0)
    return cls(**{"vocabulary_size": 30, "num_layers": 2, "hidden_dim": 16, **arguments})


def inputs_of(encoder, ids, mask, positions=None):
    known = {"token_ids": ids, "padding_mask": mask, "position_ids": positions}
    known["segment_ids"] = ops.zeros_like(ids)
    return {name: ops.convert_to_tensor(known[name]) for name in encoder.input}


def draw(*arguments, training=True, **named):
    outputs = DropToken(*arguments, **{"seed": 5, **named})(IDS, mask=MASK, training=training)
    return [to_numpy(x) for x in outputs]


@pytest.mark.parametrize("rate", [0.1, 0.29, 0.5, 0.7, 0.9])
def test_each_row_keeps_the_same_share_of_its_own_tokens_in_their_order(rate):
    ids, positions, mask = draw(rate)
    expected = [int(np.ceil(round((1 - rate) * m, 9))) for m in LENGTHS]
    assert mask.shape == ids.shape == positions.shape == (4, expected[0])
    assert mask.sum(1).tolist() == expected
    for row in range(4):
        kept = positions[row][mask[row]]
        assert (np.diff(kept) > 0).all() and (kept < LENGTHS[row]).all()
        assert (kept[:1] == 0).all()  # the first stays
        assert not mask[row, expected[row] :].any()
        np.testing.assert_array_equal(ids[row][mask[row]], IDS[row, kept])


def test_the_first_token_is_the_first_that_is_none_of_padding():
    mask = np.repeat(MASK[:3, ::-1], 20, axis=0)  # padded on the left
    kept = DropToken(0.6, mode="mask", seed=1)(mask, mask=mask, training=True)[2]
    kept = to_numpy(kept)
    assert kept[np.arange(60), mask.argmax(1)].all() and not (kept & ~mask).any()


@pytest.mark.parametrize("keep_first", [True, False])
def test_all_sets_are_equally_likely(keep_first):
    ids = np.zeros((12000, 5), "int32")
    layer = DropToken(0.5, keep_first, mode="mask", seed=3)
    kept = to_numpy(layer(ids, training=True)[2])
    found, counts = np.unique(kept, axis=0, return_counts=True)
    sets = itertools.combinations(range(5), 3)
    sets = [each for each in sets if 0 in each] if keep_first else list(sets)
    assert sorted(tuple(np.flatnonzero(row)) for row in found) == sets
    share = 1 / len(sets)
    assert np.abs(counts / 12000 - share).max() < 4 * np.sqrt(share / 12000)


def test_at_inference_all_is_as_it_was():
    for mode in ("gather", "mask"):
        ids, positions, mask = draw(0.5, mode=mode, training=False)
        np.testing.assert_array_equal(ids, IDS)
        np.testing.assert_array_equal(mask, MASK)
        np.testing.assert_array_equal(positions, np.tile(np.arange(12), (4, 1)))
    vectors, _, mask = DropToken(0.5)(ops.ones((2, 3, 4)))
    assert tuple(vectors.shape) == (2, 3, 4) and to_numpy(mask).all()


def test_each_call_draws_anew_and_a_seed_draws_the_same():
    layers = [DropToken(0.5, seed=7) for _ in range(2)]
    first, second = ([to_numpy(x(IDS, training=True)[1]) for _ in range(2)] for x in layers)
    assert not np.array_equal(first[0], first[1])
    np.testing.assert_array_equal(first, second)


def test_positions_of_ones_own_are_gathered_as_they_are():
    positions = np.float32(np.arange(12) + 0.25) * 300  # not in half precision
    layer = DropToken(0.5, seed=5, dtype="mixed_float16")
    ids, kept, mask = layer(IDS, mask=MASK, positions=positions, training=True)
    np.testing.assert_array_equal(to_numpy(kept), positions[draw(0.5)[1]])
    assert keras.backend.standardize_dtype(ids.dtype) == "int32"


@pytest.mark.slow
@pytest.mark.parametrize("cls", PLACED, ids=lambda cls: cls.__name__)
def test_fewer_tokens_and_hidden_columns_are_the_same_to_an_encoder(cls):
    encoder = encoder_of(cls)
    outputs = {}
    for mode in ("gather", "mask"):
        ids, positions, mask = DropToken(0.4, mode=mode, seed=2)(IDS, mask=MASK, training=True)
        outputs[mode] = to_numpy(encoder(inputs_of(encoder, ids, mask, positions)))
        if mode == "gather":
            place, kept = to_numpy(positions), to_numpy(mask)
    there = np.take_along_axis(outputs["mask"], place[..., None], axis=1)
    difference = np.abs(np.where(kept[..., None], there - outputs["gather"], 0))
    assert difference.max() < 1e-5 and np.abs(outputs["gather"]).max() > 0.1
    # And other tokens than without dropping.
    whole = to_numpy(encoder(inputs_of(encoder, IDS, MASK, np.tile(np.arange(12), (4, 1)))))
    assert np.abs(whole - outputs["mask"])[:2].max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("cls", ENCODERS, ids=lambda cls: cls.__name__)
def test_column_dropout_of_an_encoder_is_the_mask_form_in_training_only(cls, tmp_path):
    plain, dropping = encoder_of(cls), encoder_of(cls, column_dropout=0.4)
    assert not any(isinstance(layer, DropToken) for layer in plain.layers)
    dropping.set_weights(plain.get_weights())
    places = np.tile(np.arange(12), (4, 1))
    inputs = inputs_of(plain, IDS, MASK, places)
    expected = to_numpy(plain(inputs))
    np.testing.assert_array_equal(to_numpy(dropping(inputs)), expected)
    layer = dropping.get_layer("Attention-Column-Dropout")
    state = to_numpy(layer.seed_generator.state)
    trained = to_numpy(dropping(inputs, training=True))
    layer.seed_generator.state.assign(state)
    if cls is BigramRoFormerEncoder:  # it also looks at the mask apart from attention
        assert np.abs(trained - expected).max() > 1e-3
    else:
        mask = layer(IDS, mask=MASK, training=True)[2]
        np.testing.assert_array_equal(trained, to_numpy(plain(inputs_of(plain, IDS, mask, places))))
    # A config from before knows nothing of it, and can be given it.
    config = plain.get_config()
    assert config.pop("column_dropout") == 0.0
    assert cls.from_config(config).column_dropout == 0.0
    again = cls.from_config({**config, "column_dropout": 0.4})
    again.set_weights(plain.get_weights())
    again.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    assert loaded.column_dropout == 0.4
    np.testing.assert_array_equal(to_numpy(loaded(inputs)), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "mode"),
    [("float32", "gather"), ("mixed_float16", "mask"), ("mixed_bfloat16", "gather")],
)
def test_a_model_with_it_trains_compiled_and_is_saved(policy, mode, tmp_path):
    ids = keras.Input((12,), dtype="int32")
    kept, positions, mask = DropToken(0.5, mode=mode)(ids, mask=ids > 0)
    encoder = encoder_of(RoFormerEncoder, dtype=policy, num_layers=1)
    x = encoder({"token_ids": kept, "padding_mask": mask, "position_ids": positions})
    x = keras.layers.GlobalAveragePooling1D(dtype="float32")(x, mask=mask)
    model = keras.Model(ids, keras.layers.Dense(1, dtype="float32")(x))
    model.compile("adam", "mse", jit_compile=True)
    history = model.fit(IDS[:3], np.ones((3, 1)), epochs=3, verbose=0).history["loss"]
    assert np.isfinite(history).all() and history[-1] < history[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(IDS, verbose=0), model.predict(IDS, verbose=0))


def test_what_is_refused():
    for rate in (1.0, -0.1, float("nan"), "0.1"):
        with pytest.raises(ValueError, match="Received: rate="):
            DropToken(rate)
    with pytest.raises(ValueError, match=r"\('gather', 'mask'\).*Received: mode='drop'"):
        DropToken(0.1, mode="drop")
    with pytest.raises(ValueError, match=r"Expected rate in \[0, 1\)"):
        encoder_of(BertEncoder, column_dropout=1.0)
