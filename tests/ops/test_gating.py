import keras
import numpy as np
import pytest
from gradients import numerical_gradient, to_numpy, value_and_gradient

from keras_ext.ops.gating import gated_product

RNG = np.random.default_rng(0)
GATE, X = RNG.normal(size=(2, 3, 4)).astype("float32") * 3


@pytest.mark.parametrize("activation", ["swish", "gelu", "linear"])
def test_value_and_gradient_are_those_of_the_product(activation):
    function = keras.activations.get(activation)

    def plain(gate, x):
        return function(gate) * x

    expected, slopes = value_and_gradient(plain, GATE, X)
    for compiled in (False, True):
        value, gradients = value_and_gradient(
            lambda gate, x: gated_product(gate, x, function), GATE, X, compiled=compiled
        )
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        for gradient, slope in zip(gradients, slopes, strict=True):
            np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6)


def test_gradient_of_the_swish_by_differences():
    _, (gradient, _) = value_and_gradient(
        lambda gate, x: gated_product(gate, x, keras.activations.silu), GATE, X
    )
    slope = numerical_gradient(lambda gate: gate / (1 + np.exp(-gate)) * X, GATE)
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-5)


def test_half_precision_keeps_its_dtype_and_large_gates_are_finite():
    gate = np.array([-1e4, -50, 0, 50, 1e4], "float16")
    value, gradients = value_and_gradient(
        lambda gate, x: gated_product(gate, x, keras.activations.silu), gate, gate
    )
    assert value.dtype == np.float16
    assert np.isfinite(to_numpy(gradients[0])).all()
