import math

import keras
import numpy as np
import pytest

from keras_ext import activations
from keras_ext.layers.feed_forward import FeedForward

FORMULAS = {
    "gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    None: lambda x: x,
}


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 3, 4), scale=2).astype("float32")


@pytest.mark.parametrize("activation", FORMULAS)
@pytest.mark.parametrize("use_bias", [False, True])
def test_output_is_that_of_the_formula(x, activation, use_bias):
    layer = FeedForward(6, activation, use_bias)
    layer.build(x.shape)
    layer.set_weights([weight + 0.3 for weight in layer.get_weights()])
    weights = layer.get_weights()
    if not use_bias:
        weights = [weights[0], 0.0, weights[1], 0.0]
    expected = FORMULAS[activation](x @ weights[0] + weights[1]) @ weights[2] + weights[3]
    np.testing.assert_allclose(np.array(layer(x)), expected, atol=1e-5)


def test_the_two_flavours_of_gelu_differ():
    grid = np.linspace(-4, 4, 801, dtype="float32")
    exact, approximate = activations.get("gelu")(grid), activations.get("gelu_tanh")(grid)
    difference = np.abs(np.array(exact) - np.array(approximate)).max()
    assert 1e-4 < difference < 5e-4


@pytest.mark.parametrize("activation", FORMULAS)
def test_an_activation_survives_the_config(activation):
    config = FeedForward(6, activation).get_config()
    assert config["activation"] == (activation or "linear")
    again = FeedForward.from_config(config)
    assert again.activation is FeedForward(6, activation).activation


def test_an_activation_of_the_user_survives_the_config():
    @keras.saving.register_keras_serializable(package="test_feed_forward")
    def cube(x):
        return x**3

    config = FeedForward(6, cube).get_config()
    assert FeedForward.from_config(config).activation is cube


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="gelu_tan"):
        FeedForward(6, "gelu_tan")
