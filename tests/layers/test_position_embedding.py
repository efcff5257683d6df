import numpy as np
import pytest

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
