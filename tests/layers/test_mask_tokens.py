"""Tokens that are masked: how many, which, by what, and that others stay."""

import keras
import numpy as np
import pytest
from gradients import to_numpy

from keras_ext.layers.mask_tokens import MaskTokens

RNG = np.random.default_rng(0)
MASK_ID, SIZE = 19, 20


def masked(ids, mask=None, training=True, **arguments):
    layer = MaskTokens(MASK_ID, SIZE, **{"seed": 1, **arguments})
    return [to_numpy(x) for x in layer(ids, mask=mask, training=training)]


@pytest.mark.parametrize("rate", [0.15, 0.5, 1.0, 0.29])
def test_exactly_the_rate_of_the_real_tokens_is_selected(rate):
    ids = RNG.integers(1, SIZE, (6, 40))
    lengths = np.array([40, 10, 7, 3, 1, 0])
    ids[np.arange(40) >= lengths[:, None]] = 0
    ids[:4, 0] = 2
    x, y, weights = masked(ids, rate=rate, exclude_ids=(0, 2))
    candidates = ~np.isin(ids, (0, 2))
    expected = np.ceil(np.round(rate * candidates.sum(1), 9))
    np.testing.assert_array_equal(weights.sum(1), expected)
    assert not weights[~candidates].any()
    np.testing.assert_array_equal(y, ids)
    np.testing.assert_array_equal(x[weights == 0], ids[weights == 0])
    assert (x.dtype, y.dtype, weights.dtype) == ("int32", "int32", "float32")


def test_the_mask_of_padding_counts_where_there_is_no_id_for_it():
    ids = RNG.integers(0, SIZE, (2, 8))
    mask = np.arange(8) < [[8], [3]]
    _, _, weights = masked(ids, mask, exclude_ids=())
    assert weights.sum(1).tolist() == [4, 2] and not weights[~mask].any()


def test_selected_tokens_are_split_as_they_should():
    ids = np.full((400, 200), 7, "int32")
    x, _, weights = masked(ids, rate=0.25, split=(0.5, 0.3, 0.2), exclude_ids=(0, 1))
    chosen = x[weights == 1]
    assert len(chosen) == 400 * 50

    def near(share, expected):
        return abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / len(chosen))

    others = SIZE - 2  # a random id may be the mask, and the token itself
    assert near((chosen == MASK_ID).mean(), 0.5 + 0.2 / others)
    assert near((chosen == 7).mean(), 0.3 + 0.2 / others)
    counts = np.bincount(chosen, minlength=SIZE)
    assert not counts[:2].any()
    rest = np.delete(counts, [0, 1, 7, MASK_ID]) / len(chosen)
    assert all(near(share, 0.2 / others) for share in rest)
    x, _, weights = masked(ids, split=(1, 0, 0))
    assert (x[weights == 1] == MASK_ID).all()


def test_training_draws_anew_and_evaluation_never():
    ids = RNG.integers(1, SIZE, (3, 30))
    layers = [MaskTokens(MASK_ID, SIZE, seed=4) for _ in range(2)]
    draws = [[to_numpy(x(ids, training=True)[2]) for _ in range(2)] for x in layers]
    np.testing.assert_array_equal(*draws)
    assert not np.array_equal(draws[0][0], draws[0][1])
    fixed = [to_numpy(layers[0](ids)[0]) for _ in range(2)]
    np.testing.assert_array_equal(*fixed)
    other = to_numpy(MaskTokens(MASK_ID, SIZE, seed=5)(ids)[0])
    assert not np.array_equal(fixed[0], other)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_config_saving_and_compiled_calls(policy, tmp_path):
    arguments = {"rate": 0.25, "split": [1.0, 0.0, 0.0], "exclude_ids": [0, 3], "seed": 2}
    layer = MaskTokens(MASK_ID, SIZE, **arguments, dtype=policy)
    config = layer.get_config()
    assert {name: config[name] for name in arguments} == arguments
    assert MaskTokens.from_config(config).get_config() == config
    inputs = keras.Input((None,), dtype="int32")
    model = keras.Model(inputs, layer(inputs))
    ids = RNG.integers(1, SIZE, (3, 12))
    expected = [to_numpy(x) for x in layer(ids)]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for x, y in zip(loaded(ids), expected, strict=True):
        np.testing.assert_array_equal(to_numpy(x), y)
    # XLA draws other numbers, but also the same at each call.
    loaded.compile(jit_compile=True)
    first, second = (loaded.predict(ids, verbose=0) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[2].sum(1), expected[2].sum(1))
    assert [x.dtype for x in model.outputs] == ["int32", "int32", "float32"]


def test_it_fits_between_data_and_fit():
    # With the output of the layer as x, y and sample_weight, a model learns to guess.
    layer = MaskTokens(MASK_ID, SIZE, seed=0)
    batch = layer(np.tile([[3, 4, 5, 6]], (8, 3)), training=True)
    model = keras.Sequential([keras.layers.Embedding(SIZE, 8), keras.layers.Dense(SIZE)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss)
    first = model.train_on_batch(*batch)
    for _ in range(5):
        last = model.train_on_batch(*batch)
    assert last < first


def test_what_is_refused():
    for arguments, said in [
        ({"rate": 0.0}, r"Expected rate in \(0, 1\]. Received: rate=0.0"),
        ({"rate": 1.5}, r"Received: rate=1.5"),
        ({"split": (0.8, 0.1)}, r"three probabilities that sum to 1"),
        ({"split": (0.8, 0.3, -0.1)}, r"Received: split=\(0.8, 0.3, -0.1\)"),
        ({"exclude_ids": (0, 20)}, r"below vocabulary_size.*\(0, 20\)"),
        ({"exclude_ids": range(20)}, r"not excluded"),
    ]:
        with pytest.raises(ValueError, match=said):
            MaskTokens(MASK_ID, SIZE, **arguments)
    with pytest.raises(ValueError, match="below vocabulary_size.*mask_id=20"):
        MaskTokens(20, SIZE)
