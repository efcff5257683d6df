import keras
import numpy as np
import pytest
from gradients import numerical_gradient, relative_error, to_numpy, value_and_gradient

from keras_ext.layers.deepnorm_residual import DeepNormResidual


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, 3, 6), scale=3).astype("float32") for _ in range(2)]


def made(alpha=2.5, **arguments):
    """A built layer whose weights are random."""
    layer = DeepNormResidual(alpha, **arguments)
    layer.build([(None, None, 6)] * 2)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    return layer


def formula(x, branch, layer):
    y = layer.alpha * x + branch
    y = y - y.mean(-1, keepdims=True)
    y = y / np.sqrt((y**2).mean(-1, keepdims=True) + layer.epsilon)
    y = y * to_numpy(layer.gamma) if layer.scale else y
    return y + to_numpy(layer.beta) if layer.offset else y


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
def test_value_and_gradients_are_those_of_the_formula(pair, scale, offset, epsilon):
    layer = made(scale=scale, offset=offset, epsilon=epsilon)
    slopes = np.arange(6, dtype="float32") ** 2
    value, gradients = value_and_gradient(lambda x, f: layer([x, f]) * slopes, *pair)
    x, branch = (part.astype("float64") for part in pair)
    assert relative_error(value, formula(x, branch, layer) * slopes) < 1e-5
    exact = numerical_gradient(lambda x: formula(x, branch, layer) * slopes, x)
    assert relative_error(gradients[0], exact) < 1e-4
    exact = numerical_gradient(lambda f: formula(x, f, layer) * slopes, branch)
    assert relative_error(gradients[1], exact) < 1e-4


def test_an_alpha_of_1_is_post_norm(pair):
    layer = keras.layers.LayerNormalization(epsilon=1e-5)
    expected = np.array(layer(pair[0] + pair[1]))
    np.testing.assert_allclose(np.array(DeepNormResidual(1.0)(pair)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, ["beta", "gamma"]),
        ({"offset": False}, ["gamma"]),
        ({"scale": False}, ["beta"]),
        ({"scale": False, "offset": False}, []),
    ],
)
def test_it_has_only_the_weights_that_it_uses(arguments, names):
    assert [weight.name for weight in made(**arguments).weights] == names


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_does_not_overflow(pair, policy):
    exact, half = made(alpha=6.7), made(alpha=6.7, dtype=policy)
    x, branch = (3e4 * part / np.abs(part).max() for part in pair)  # 6.7 x is not in float16
    x, branch = (np.array(part, "float16").astype("float32") for part in (x, branch))
    value, gradients = value_and_gradient(lambda *pair: half(list(pair)), x, branch)
    assert keras.backend.standardize_dtype(value.dtype) == half.compute_dtype
    expected = np.array(exact([x, branch]))
    assert relative_error(value.astype("float32"), expected) < 0.01
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_equal_channels_give_the_offset_and_a_finite_gradient():
    layer = made()
    ones = np.ones((1, 2, 6), "float32")
    value, gradients = value_and_gradient(lambda x, f: layer([x, f]), ones, 3 * ones)
    np.testing.assert_allclose(value[0, 0], to_numpy(layer.beta), atol=1e-3)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_the_mask_of_the_residual_is_handed_on():
    tokens = np.array([[3, 1, 0]])
    x = keras.layers.Embedding(4, 6, mask_zero=True)(tokens)
    branch = np.ones((1, 3, 6), "float32")
    for inputs in (
        [x, keras.ops.convert_to_tensor(branch)],
        [keras.ops.convert_to_tensor(branch), x],
    ):
        output = DeepNormResidual(2.0)(inputs)
        assert np.array_equal(to_numpy(output._keras_mask), tokens > 0)


@pytest.mark.parametrize("alpha", [0, -1.0, float("inf"), float("nan")])
def test_a_bad_alpha_is_refused(alpha):
    with pytest.raises(ValueError, match="above 0. Received: alpha="):
        DeepNormResidual(alpha)


def test_what_is_no_pair_is_refused(pair):
    x, branch = pair
    for inputs in (x, [x], [x, branch, x], [x, branch[:, :1]]):
        with pytest.raises(ValueError, match="residual and a branch.*Received: input_shape="):
            DeepNormResidual(2.0)(inputs)


def test_of_each_axis_the_known_length_counts():
    inputs = [keras.KerasTensor((None, 5, None)), keras.KerasTensor((2, None, 4))]
    assert DeepNormResidual(2.0)(inputs).shape == (2, 5, 4)
    with pytest.raises(ValueError, match="residual and a branch.*Received: input_shape="):
        DeepNormResidual(2.0)([inputs[0], keras.KerasTensor((2, 6, 4))])
