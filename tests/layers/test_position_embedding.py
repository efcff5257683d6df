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
