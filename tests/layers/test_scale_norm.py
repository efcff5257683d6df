import numpy as np
import pytest
from gradients import numerical_gradient, relative_error, to_numpy, value_and_gradient

from keras_ext.layers.scale_norm import ScaleNorm


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 5, 8), scale=3).astype("float32")


def made(gain=1.7, **arguments):
    layer = ScaleNorm(**arguments)
    layer.build((None, None, 8))
    layer.gain.assign(gain)
    return layer


def formula(x, gain=1.7, epsilon=1e-7):
    return gain * x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)


@pytest.mark.parametrize("epsilon", [1e-7, 0.5])
def test_value_and_gradient_are_those_of_the_formula(x, epsilon):
    layer, slopes = made(epsilon=epsilon), np.arange(8, dtype="float32")
    value, (gradient,) = value_and_gradient(lambda x: layer(x) * slopes, x)
    expected = formula(x.astype("float64"), epsilon=epsilon)
    assert relative_error(value, expected * slopes) < 1e-6
    exact = numerical_gradient(lambda x: formula(x, epsilon=epsilon) * slopes, x)
    assert relative_error(gradient, exact) < 1e-5


def test_every_vector_gets_the_length_of_the_gain(x):
    lengths = np.linalg.norm(np.array(made()(x)), axis=-1)
    np.testing.assert_allclose(lengths, 1.7 * np.sqrt(8), rtol=1e-5)
    np.testing.assert_allclose(np.array(made()(1000 * x)), np.array(made()(x)), rtol=1e-5)


def test_its_one_weight_is_a_number_that_begins_as_1(x):
    layer = ScaleNorm()
    layer(x)
    assert [tuple(weight.shape) for weight in layer.weights] == [()]
    assert float(layer.gain.value) == 1.0


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_zeros_stay_and_have_a_finite_gradient(policy):
    layer = made(dtype=policy)
    value, (gradient,) = value_and_gradient(layer, np.zeros((2, 8), "float32"))
    assert np.array_equal(value, np.zeros((2, 8)))
    np.testing.assert_allclose(gradient, 1.7 / np.sqrt(1e-7), rtol=0.01)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("size", [3e4, 1e-4])
def test_half_precision_neither_overflows_nor_loses_small_squares(x, policy, size):
    x = size * x / np.abs(x).max()
    output = to_numpy(made(epsilon=1e-12, dtype=policy)(x)).astype("float32")
    assert relative_error(output, formula(x.astype("float64"), epsilon=1e-12)) < 0.01
