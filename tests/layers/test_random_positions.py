import itertools
import math

import keras
import numpy as np
import pytest
from gradients import to_numpy

from keras_ext.layers.random_positions import RandomPositions

POLICIES = ["float32", "mixed_float16", "mixed_bfloat16"]


def drawn(batch, length, **arguments):
    layer = RandomPositions(**{"seed": 1, **arguments})
    return to_numpy(layer(np.zeros((batch, length), "int32"), training=True))


def test_a_subset_is_of_different_integers_in_order():
    positions = drawn(200, 12, max_position=20)
    assert positions.shape == (200, 12)
    assert np.array_equal(positions, np.floor(positions))
    assert (np.diff(positions) > 0).all()
    assert (positions.min(), positions.max()) == (0, 19)
    assert len(np.unique(positions, axis=0)) > 190  # each row has its own


def test_all_subsets_are_equally_likely():
    positions = drawn(20000, 2, max_position=5)
    pairs, counts = np.unique(positions, axis=0, return_counts=True)
    assert pairs.tolist() == [list(pair) for pair in itertools.combinations(range(5), 2)]
    deviations = (counts - 2000) / math.sqrt(2000 * 0.9)
    assert np.abs(deviations).max() < 4


def test_the_whole_range_is_the_only_subset_of_its_size():
    for training in (True, False):
        positions = RandomPositions(max_position=6)(np.zeros((2, 6)), training=training)
        assert to_numpy(positions).tolist() == [list(range(6))] * 2


def test_at_inference_a_subset_is_equally_spaced():
    layer = RandomPositions(max_position=10)
    assert to_numpy(layer(np.zeros((2, 5)))).tolist() == [[0, 2, 4, 6, 8]] * 2
    assert to_numpy(layer(np.zeros((1, 3, 7)), training=False)).tolist() == [[0, 3, 6]]
    # More than int32 holds before the division.
    layer = RandomPositions(max_position=2**24)
    positions = to_numpy(layer(np.zeros((1, 1000))))[0]
    assert positions.tolist() == [i * 2**24 // 1000 for i in range(1000)]


@pytest.mark.parametrize("open_length", [False, True])
def test_a_long_subset_at_inference_is_exact(open_length):
    # 65536^2 is not in int32, either.
    layer, length = RandomPositions(max_position=2**24), 65537
    ids = keras.Input((None if open_length else length,))
    model = keras.Model(ids, layer(ids))
    positions = model.predict(np.zeros((1, length), "int8"), verbose=0)[0]
    assert positions.tolist() == [i * 2**24 // length for i in range(length)]


def test_where_a_graph_leaves_the_length_open_positions_repeat():
    if keras.backend.backend() == "jax":
        pytest.skip("every length is known")
    ids = keras.Input((None,))
    model = keras.Model(ids, RandomPositions(max_position=3)(ids))
    # One batch after the other of another length: then the second is traced with it open.
    model.predict(np.zeros((1, 2)), verbose=0)
    assert model.predict(np.zeros((1, 5)), verbose=0).tolist() == [[0, 0, 1, 1, 2]]


@pytest.mark.parametrize("distribution", ["exponential", "beta"])
def test_equal_mean_positions_are_equally_spaced_up_to_one_of_mean_n(distribution):
    arguments = {"mode": "equal_mean", "distribution": distribution, "max_position": 40}
    positions = drawn(20000, 16, **arguments)
    last = positions[:, -1:]
    np.testing.assert_allclose(positions, last * np.arange(16) / 15, rtol=1e-5)
    assert last.min() >= 0
    # Deviations of Exp(1 / n) and of L Beta(1, L / n - 1).
    x, rest = 16 / 40, 40 / 16 - 1
    deviation = {"exponential": 16, "beta": 40 * math.sqrt(x * (1 - x) / (rest + 2))}[distribution]
    assert last.mean() == pytest.approx(16, abs=5 * deviation / math.sqrt(20000))
    assert last.std() == pytest.approx(deviation, rel=0.05)
    assert (last.max() <= 40) == (distribution == "beta")


def test_beta_becomes_exponential_for_a_long_range():
    arguments = {"mode": "equal_mean", "max_position": 10**6}
    beta = drawn(5, 8, distribution="beta", **arguments)
    np.testing.assert_allclose(
        beta, drawn(5, 8, distribution="exponential", **arguments), rtol=1e-3
    )


@pytest.mark.parametrize("distribution", ["exponential", "beta"])
def test_equal_mean_at_inference_and_at_its_ends(distribution):
    layer = RandomPositions("equal_mean", 5, distribution)
    assert to_numpy(layer(np.zeros((2, 5)))).tolist() == [[0, 1, 2, 3, 4]] * 2
    assert to_numpy(layer(np.zeros((3, 1)), training=True)).tolist() == [[0]] * 3
    full = to_numpy(layer(np.zeros((50, 5)), training=True))
    assert np.isfinite(full).all()
    if distribution == "beta":  # its mean is the end of the range
        np.testing.assert_allclose(full, np.tile([0, 1.25, 2.5, 3.75, 5], (50, 1)), rtol=1e-5)


@pytest.mark.parametrize("policy", POLICIES)
def test_positions_are_float32_in_every_policy(policy):
    layer = RandomPositions(max_position=4099, dtype=policy)
    positions = to_numpy(layer(np.zeros((1, 4099, 1), "float32")))
    assert positions.dtype == "float32"
    assert positions[0].tolist() == list(range(4099))
    symbolic = layer(keras.Input((None, 3)))
    assert (symbolic.shape, symbolic.dtype) == ((None, None), "float32")


def test_a_seed_gives_the_same_positions_and_calls_differ():
    inputs = np.zeros((2, 8))
    layers = [RandomPositions(max_position=99, seed=seed) for seed in (3, 3, 4)]
    first = [to_numpy(layer(inputs, training=True)) for layer in layers]
    np.testing.assert_array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])
    assert not np.array_equal(first[0], to_numpy(layers[0](inputs, training=True)))


def test_a_model_trains_on_random_positions_and_predicts_on_fixed_ones():
    ids = keras.Input((None,), dtype="int32")
    positions = RandomPositions(max_position=50, seed=0)(ids)
    model = keras.Model(ids, keras.layers.Dense(1)(keras.ops.expand_dims(positions, -1)))
    model.compile(keras.optimizers.SGD(1e-4), "mse", jit_compile=True)
    x = np.zeros((8, 6), "int32")
    model.fit(x, np.zeros((8, 6, 1)), batch_size=4, verbose=0)
    first, again = model.predict(x, verbose=0), model.predict(x, verbose=0)
    np.testing.assert_array_equal(first, again)
    assert model.predict(np.zeros((2, 9), "int32"), verbose=0).shape == (2, 9, 1)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"mode": "random"}, "'equal_mean'.*Received: mode='random'"),
        ({"distribution": "normal"}, "'beta'.*Received: distribution='normal'"),
        ({"distribution": "beta"}, "Received: mode='subset', distribution='beta'"),
        ({"max_position": 0}, "Received: max_position=0"),
        ({"max_position": 2**24 + 1}, "from 1 to 16777216. Received: max_position=16777217"),
    ],
)
def test_bad_arguments_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        RandomPositions(**arguments)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mode", [{}, {"mode": "equal_mean", "distribution": "beta"}])
def test_more_places_than_positions_are_refused(mode, training):
    layer = RandomPositions(max_position=4, **mode)
    with pytest.raises(ValueError, match="positions, 4. Received: length=5"):
        layer(np.zeros((1, 5)), training=training)
    with pytest.raises(ValueError, match="positions, 4. Received: length=5"):
        layer(keras.Input((5,)))
    unbounded = RandomPositions("equal_mean", 4)
    assert unbounded(np.zeros((1, 5)), training=training).shape == (1, 5)
