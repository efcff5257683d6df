import keras
import numpy as np
import pytest
from gradients import value_and_gradient
from scipy import stats

from keras_ext.layers import SAU


@pytest.mark.parametrize(("slope", "width"), [(0.25, 1.0), (0.0, 0.3), (0.1, 50.0)])
def test_is_the_formula(slope, width):
    x = np.linspace(-5, 5, 41).astype("float32")
    relu = x * stats.norm.cdf(x / width) + width * stats.norm.pdf(x / width)
    layer = SAU(slope, width)
    np.testing.assert_allclose(
        np.asarray(layer(x)), slope * x + (1 - slope) * relu, rtol=1e-4, atol=1e-5
    )


def test_goes_to_leaky_relu():
    x = np.linspace(-5, 5, 41).astype("float32")
    expected = np.asarray(keras.ops.leaky_relu(x, 0.25))
    np.testing.assert_allclose(np.asarray(SAU(0.25, 2e-4)(x)), expected, atol=1e-3)


def test_gelu_is_another_function():
    x = np.linspace(-2, 2, 41).astype("float32")
    difference = np.asarray(SAU(0.0, 1.0)(x)) - np.asarray(keras.ops.gelu(x, approximate=False))
    np.testing.assert_allclose(difference, stats.norm.pdf(x), atol=1e-6)


def test_slope_and_width_are_learned():
    x = np.linspace(-4, 4, 256).astype("float32")[:, None]
    target = np.asarray(SAU(0.05, 0.4)(x))
    model = keras.Sequential([SAU(0.5, 2.0)])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(x, target, batch_size=256, epochs=300, verbose=0)
    slope, raw = (float(np.asarray(weight)) for weight in model.layers[0].trainable_weights)
    np.testing.assert_allclose([slope, np.log1p(np.exp(raw))], [0.05, 0.4], atol=0.08)
    assert not SAU(trainable=False).trainable


def test_the_derivative_at_0_is_between_slope_and_1():
    layer = SAU(0.2, 0.5)
    layer.build((1,))
    _, (gradient,) = value_and_gradient(layer, np.zeros(3, "float32"))
    np.testing.assert_allclose(gradient, 0.6, rtol=1e-6)


@pytest.mark.parametrize("width", [0.0, -1.0, 1e-4])
def test_a_width_of_0(width):
    with pytest.raises(ValueError, match=r"width above.*Received: width="):
        SAU(width=width)
