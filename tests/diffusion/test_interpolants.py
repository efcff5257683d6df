import keras
import numpy as np
import pytest
from keras import ops

from keras_ext.diffusion import (
    FunctionInterpolant,
    StochasticInterpolant,
    VariancePreservingInterpolant,
    interpolants,
)

TENSORFLOW = keras.backend.backend() == "tensorflow"


@keras.saving.register_keras_serializable(package="test_interpolants")
def bent(x0, x1, t):
    """A path whose velocity needs all that a function may be made of."""
    return x0 + t**2 * (x1 - x0) + ops.sin(np.pi * t) * ops.tanh(x0 * x1)


ALL = [*(interpolants.get(name) for name in interpolants.NAMES), interpolants.get(bent)]


def ends(rng, count=5):
    draws = rng.normal(size=(3, count, 2, 3)).astype("float32")
    return [ops.convert_to_tensor(each) for each in draws]


@pytest.mark.parametrize("interpolant", ALL, ids=str)
def test_the_velocity_is_the_derivative_and_the_ends_are_the_ends(interpolant, rng):
    x0, x1, z = ends(rng)
    interpolants.check_ends(interpolant, (2, 3))
    t, h = np.float32([0.02, 0.2, 0.5, 0.77, 0.98]), 1e-3
    slope = [np.asarray(interpolant(x0, x1, t + s, z), "float64") for s in (h, -h)]
    found = np.asarray(interpolant.velocity(x0, x1, ops.convert_to_tensor(t), z))
    # Central differences are off by h^2 / 6 of the third derivative: of t^(1/2) at 0.02 by 3.5e-3.
    np.testing.assert_allclose(found, (slope[0] - slope[1]) / (2 * h), atol=0.02)
    assert found.dtype == "float32"


def test_formulas(rng):
    x0, x1, z = ends(rng)
    a, b, c = (np.asarray(each) for each in (x0, x1, z))
    t = 0.3
    for name, expected in {
        "linear": 0.7 * a + 0.3 * b,
        "trigonometric": np.cos(0.15 * np.pi) * a + np.sin(0.15 * np.pi) * b,
        "stochastic": 0.7 * a + 0.3 * b + np.sqrt(0.42) * c,
    }.items():
        np.testing.assert_allclose(interpolants.get(name)(x0, x1, t, z), expected, atol=1e-6)
    # Near the amplitudes of the schedule, which keep 0.0066 of the data at 1.
    kept, noise = np.exp(-0.5 * (0.1 * t + 9.95 * t**2)), interpolants.get("variance_preserving")
    expected = kept * a + np.sqrt(1 - kept**2) * b
    np.testing.assert_allclose(noise(x0, x1, t), expected, atol=0.02)
    assert np.abs(np.asarray(noise(x0, x1, 1.0)) - b).max() < 1e-6


@pytest.mark.parametrize("name", ["variance_preserving", "stochastic"])
def test_velocities_are_finite_at_the_ends(name, rng):
    interpolant, (x0, x1, z) = interpolants.get(name), ends(rng)
    for t, last in ((0.0, interpolant.first), (1.0, interpolant.last)):
        found, near = (np.asarray(interpolant.velocity(x0, x1, each, z)) for each in (t, last))
        assert np.isfinite(found).all() and np.abs(near).max() < 100
        np.testing.assert_allclose(found, near, rtol=1e-2, atol=0.1)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_derivative_of_a_function_is_the_same_compiled(jit_compile, rng):
    x0, x1, _ = ends(rng)
    t = ops.convert_to_tensor(np.float32([0.0, 0.2, 0.5, 0.77, 1.0]))
    interpolant = FunctionInterpolant(bent)
    a, b, s = np.asarray(x0), np.asarray(x1), np.asarray(t)[:, None, None]
    expected = 2 * s * (b - a) + np.pi * np.cos(np.pi * s) * np.tanh(a * b)
    if TENSORFLOW:
        import tensorflow as tf

        velocity = tf.function(interpolant.velocity, jit_compile=jit_compile, autograph=False)
    else:
        import jax

        velocity = jax.jit(interpolant.velocity) if jit_compile else interpolant.velocity
    np.testing.assert_allclose(velocity(x0, x1, t), expected, atol=1e-5)


@pytest.mark.parametrize("interpolant", [*ALL, StochasticInterpolant(0.3)], ids=str)
def test_an_interpolant_is_what_its_config_says(interpolant, rng):
    again = interpolants.get(keras.saving.serialize_keras_object(interpolant))
    assert type(again) is type(interpolant)
    x0, x1, z = ends(rng)
    np.testing.assert_array_equal(again(x0, x1, 0.4, z), interpolant(x0, x1, 0.4, z))
    assert interpolants.get(interpolant) is interpolant


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x0, x1, t: (1 - t) * x0 + 0.9 * t * x1, r"off by 0\.\d+ at t = 1"),
        (lambda x0, x1, t: t * x0 + (1 - t) * x1, r"off by \d.* at t = 0.*Expected .* = x0"),
        (lambda x0, x1, t: x0 / (1 - t), "off by nan|off by inf"),
        (lambda x0, x1, t: x0[:, :1], "shape of x0"),
    ],
)
def test_wrong_ends_are_named(function, message):
    with pytest.raises(ValueError, match=message):
        interpolants.check_ends(interpolants.get(function), (2, 3))


def test_what_is_refused(rng):
    x0, x1, _ = ends(rng)
    with pytest.raises(ValueError, match="name of linear, trig"):
        interpolants.get("cubic")
    with pytest.raises(ValueError, match="preserves the variance"):
        VariancePreservingInterpolant("edm")
    with pytest.raises(ValueError, match="scale > 0"):
        StochasticInterpolant(0.0)
    with pytest.raises(ValueError, match="standard normal"):
        StochasticInterpolant()(x0, x1, 0.5)
    with pytest.raises(ValueError, match="function"):
        FunctionInterpolant(3)


def test_an_infinite_velocity_is_named():
    def root(x0, x1, t):
        return x0 + ops.sqrt(t) * (x1 - x0)

    with pytest.raises(ValueError, match="t=0, its first time"):
        interpolants.check_ends(FunctionInterpolant(root), (2,))
    interpolants.check_ends(FunctionInterpolant(root, first=0.01), (2,))
    with pytest.raises(ValueError, match="first < last"):
        FunctionInterpolant(root, first=1.0)
