import math

import numpy as np
import pytest

from keras_ext.layers.relative_position_embedding import RelativePositionEmbedding


def made(length=6, **arguments):
    layer = RelativePositionEmbedding(**{"input_dim": 7, "output_dim": 4, **arguments})
    return layer, np.array(layer(np.zeros((2, length, 3), "float32")))


def test_the_table_holds_sines_and_cosines_in_turn():
    layer, _ = made(input_dim=129, output_dim=64)
    table = layer.get_weights()[0]
    for row, column in [(0, 0), (1, 0), (1, 1), (128, 0), (77, 10), (77, 11), (128, 63)]:
        angle = row * 10000 ** (-(column // 2 * 2) / 64)
        expected = math.cos(angle) if column % 2 else math.sin(angle)
        assert table[row, column] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("length", [1, 3, 6, 11])
def test_each_pair_gets_the_row_of_its_distance(length):
    layer, output = made(length)
    table = layer.get_weights()[0]
    assert output.shape == (length, length, 4)
    for query, key in np.ndindex(length, length):
        distance = min(max(key - query, -3), 3)
        np.testing.assert_array_equal(output[query, key], table[distance + 3])


def test_before_and_after_differ():
    _, output = made()
    assert np.abs(output[0, 1] - output[1, 0]).max() > 0.1


def test_training_leaves_the_table_and_a_checkpoint_replaces_it():
    layer, _ = made()
    assert layer.trainable_weights == []
    assert [weight.name for weight in layer.weights] == ["embeddings"]
    layer.set_weights([np.arange(28.0).reshape(7, 4)])
    output = np.array(layer(np.zeros((1, 2, 3), "float32")))
    assert output[0, 1].tolist() == [16.0, 17.0, 18.0, 19.0]


def test_the_table_is_as_exact_in_half_precision_policies():
    table = made(input_dim=2049)[0].get_weights()[0]
    half = made(input_dim=2049, dtype="mixed_float16")[0]
    np.testing.assert_array_equal(half.get_weights()[0], table)
    assert half.compute_dtype == "float16"
    assert half(np.zeros((1, 2, 3), "float32")).dtype == "float16"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"output_dim": 5}, "must be even. Received: output_dim=5"),
        ({"input_dim": 0}, "must be positive. Received: input_dim=0"),
        ({"output_dim": 0}, "must be positive.*output_dim=0"),
    ],
)
def test_bad_sizes_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        made(**arguments)
