import numpy as np
import pytest
from gradients import to_numpy, value_and_gradient

from keras_ext.layers.rms_norm import RMSNorm


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 5, 8), scale=3).astype("float32")


@pytest.mark.parametrize("epsilon", [1e-7, 1e-12, 0.5])
def test_output_is_that_of_the_formula(x, epsilon):
    expected = x / np.sqrt((x.astype("float64") ** 2).mean(-1, keepdims=True) + epsilon)
    np.testing.assert_allclose(np.array(RMSNorm(epsilon)(x)), expected, rtol=1e-5)


def test_the_scale_of_the_input_does_not_matter_and_its_mean_does(x):
    layer = RMSNorm()
    np.testing.assert_allclose(np.array(layer(1000 * x)), np.array(layer(x)), rtol=1e-5)
    assert np.abs(np.array(layer(x + 1)) - np.array(layer(x))).max() > 0.1


def test_it_has_no_weights(x):
    layer = RMSNorm()
    layer(x)
    assert layer.weights == []


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("size", [3e4, 1e-5])
def test_half_precision_neither_overflows_nor_loses_small_squares(x, policy, size):
    x = size * x / np.abs(x).max()
    output = to_numpy(RMSNorm(epsilon=1e-12, dtype=policy)(x)).astype("float32")
    expected = np.array(RMSNorm(epsilon=1e-12)(x))
    tolerance = 0.01 if policy == "mixed_float16" else 0.02
    assert np.abs(output - expected).max() < tolerance * np.abs(expected).max()


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_vector_of_zeros_stays_and_has_a_finite_gradient(policy):
    value, (gradient,) = value_and_gradient(RMSNorm(dtype=policy), np.zeros((1, 4), "float32"))
    assert np.array_equal(value, np.zeros((1, 4)))
    assert np.isfinite(gradient).all()
