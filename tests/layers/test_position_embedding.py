import keras
import numpy as np
import pytest
from harness_backend import compiled

from keras_ext.layers.position_embedding import PositionEmbedding


def test_each_position_gets_its_row():
    layer = PositionEmbedding(6, "random_normal")
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    output = np.array(layer(x))
    np.testing.assert_allclose(output, x + layer.get_weights()[0][:4], atol=1e-7)


def test_a_longer_input_is_refused():
    layer = PositionEmbedding(6)
    assert layer(np.zeros((1, 6, 3), "float32")).shape == (1, 6, 3)
    with pytest.raises(ValueError, match="table of 6 positions.*Received: length=7"):
        layer(np.zeros((1, 7, 3), "float32"))


def test_given_positions_choose_the_rows():
    layer = PositionEmbedding(6, "random_normal")
    x = np.random.default_rng(0).normal(size=(2, 3, 3)).astype("float32")
    positions = np.array([[5, 0, 2], [1, 1, 4]])
    output = np.array(layer(x, positions=positions))
    np.testing.assert_allclose(output, x + layer.get_weights()[0][positions], atol=1e-7)


def test_hierarchical_positions_mix_a_coarse_and_a_fine_row():
    layer = PositionEmbedding(3, "random_normal", hierarchical=0.3)
    output = np.array(layer(np.zeros((1, 9, 2), "float32")))[0]
    table = layer.get_weights()[0]
    base = [(row - 0.3 * table[0]) / 0.7 for row in table]
    expected = [0.3 * base[i // 3] + 0.7 * base[i % 3] for i in range(9)]
    np.testing.assert_allclose(output, expected, atol=1e-6)
    np.testing.assert_allclose(output[:3], table, atol=1e-6)
    with pytest.raises(ValueError, match="table of 9 positions.*Received: length=10"):
        layer(np.zeros((1, 10, 2), "float32"))


@pytest.mark.parametrize("hierarchical", [0, 1, 1.5])
def test_a_weight_of_the_coarse_position_outside_0_and_1_is_refused(hierarchical):
    with pytest.raises(ValueError, match=f"between 0 and 1. Received: hierarchical={hierarchical}"):
        PositionEmbedding(3, hierarchical=hierarchical)


@pytest.mark.parametrize("arguments", [{"input_dim": 9}, {"input_dim": 3, "hierarchical": 0.3}])
def test_between_two_positions_lies_the_line_between_their_vectors(arguments):
    layer = PositionEmbedding(embeddings_initializer="random_normal", **arguments)
    x = np.random.default_rng(0).normal(size=(2, 9, 4)).astype("float32")
    vectors = np.array(layer(np.zeros((1, 9, 4), "float32")))[0]
    whole = np.random.default_rng(1).permuted(np.tile(np.arange(9), (2, 1)), axis=1)
    as_floats = np.array(layer(x, positions=whole.astype("float32")))
    np.testing.assert_allclose(as_floats, np.array(layer(x, positions=whole)), atol=1e-6)
    np.testing.assert_allclose(as_floats, x + vectors[whole], atol=1e-6)
    positions = np.array([0.25, 7.5, 2.75, 8, 0, 1.5, 6.125, 3, 5.5])
    expected = np.stack([np.interp(positions, range(9), row) for row in vectors.T], axis=-1)
    np.testing.assert_allclose(np.array(layer(x, positions=positions)), x + expected, atol=1e-6)


def test_a_float_position_outside_counts_as_the_nearest():
    layer = PositionEmbedding(4, "random_normal")
    positions = np.array([[-0.5, 3.0, 3.5, 99.0]], "float32")
    output = np.array(layer(np.zeros((1, 4, 2), "float32"), positions=positions))[0]
    np.testing.assert_allclose(output, layer.get_weights()[0][[0, 3, 3, 3]], atol=1e-7)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_float_positions_are_not_rounded_in_half_precision(policy):
    layer = PositionEmbedding(4100, dtype=policy)
    layer.build((None, None, 1))
    layer.set_weights([np.arange(4100)[:, None] % 2])
    positions = np.array([[257, 2049, 4097, 4096, 300.5]], "float32")
    output = keras.ops.cast(layer(np.zeros((1, 5, 1), "float32"), positions=positions), "float32")
    assert np.array(output).ravel().tolist() == [1, 1, 1, 0, 0.5]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_vectors_between_and_hierarchical_ones_are_rounded_once(policy):
    layer = PositionEmbedding(20, "random_normal", hierarchical=0.3, dtype=policy)
    whole = PositionEmbedding(20, hierarchical=0.3)
    for each in (layer, whole):
        each.build((None, None, 8))
    whole.set_weights(layer.get_weights())
    zeros = np.zeros((1, 400, 8), "float32")
    for positions in (None, np.arange(400)[None], np.arange(400)[None] * 0.9):
        expected = whole(zeros, positions=positions)
        rounded = keras.ops.cast(keras.ops.cast(expected, layer.compute_dtype), "float32")
        output = keras.ops.cast(layer(zeros, positions=positions), "float32")
        np.testing.assert_array_equal(np.array(output), np.array(rounded))


@pytest.mark.parametrize("arguments", [{"input_dim": 4}, {"input_dim": 2, "hierarchical": 0.3}])
@pytest.mark.parametrize("way", ["plain", "compiled"])
def test_whole_positions_outside_count_as_the_nearest(arguments, way):
    layer = PositionEmbedding(embeddings_initializer="random_normal", **arguments)
    x, inside = np.zeros((1, 4, 2), "float32"), np.array([[0, 3, 3, 3]])
    expected = np.array(layer(x, positions=inside))
    call = compiled(layer) if way == "compiled" else layer
    for outside in (np.array([[-1, 3, 4, 999]], "int32"), np.array([[0, 3, 4, 200]], "uint8")):
        output = np.array(call(x, positions=outside))
        np.testing.assert_allclose(output, expected, atol=1e-7)


def test_with_positions_a_graph_may_be_longer_than_the_table():
    layer, inputs = PositionEmbedding(3, "random_normal"), keras.Input((5, 2))
    ids = keras.Input((5,), dtype="int32")
    x, positions = np.zeros((1, 5, 2), "float32"), [2, 1, 0, 0, 1]
    expected = np.array(layer(x, positions=np.array(positions)))
    output = layer(inputs, positions=ids)
    assert (output.shape, output.dtype) == ((None, 5, 2), "float32")
    model = keras.Model([inputs, ids], output)
    np.testing.assert_array_equal(np.array(model([x, np.array([positions])])), expected)
    model = keras.Model(inputs, layer(inputs, positions=positions))
    np.testing.assert_array_equal(np.array(model(x)), expected)
    with pytest.raises(ValueError, match="table of 3 positions.*Received: length=5"):
        layer(inputs)
