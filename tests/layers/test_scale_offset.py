import numpy as np
import pytest

from keras_ext.layers.scale_offset import ScaleOffset

BETA, GAMMA = np.array([3.0, -1.0, 0.5], "float32"), np.array([2.0, 0.0, -4.0], "float32")


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")


@pytest.mark.parametrize(
    ("scale", "offset", "weights"),
    [
        (True, True, {"beta": BETA, "gamma": GAMMA}),
        (True, False, {"gamma": GAMMA}),
        (False, True, {"beta": BETA}),
        (False, False, {}),
    ],
)
def test_it_has_the_weights_that_it_uses_and_beta_comes_first(x, scale, offset, weights):
    layer = ScaleOffset(scale=scale, offset=offset)
    layer.build(x.shape)
    assert [weight.name for weight in layer.weights] == list(weights)
    np.testing.assert_array_equal(layer(x), x)  # it begins as the identity
    layer.set_weights(list(weights.values()))
    expected = weights.get("gamma", 1.0) * x + weights.get("beta", 0.0)
    np.testing.assert_allclose(np.array(layer(x)), expected, rtol=1e-6)
