import keras
import numpy as np
import pytest
from keras import ops

from keras_ext.layers import GroupNorm


def data(*shape):
    return np.random.default_rng(0).normal(2.0, 3.0, shape).astype("float32")


def randomised(layer, channels, seed=1):
    layer.build((None, None, channels))
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer


def naive(x, gamma, beta, groups, scale, shift):
    """The formula, sample by sample and group by group, in float64."""
    x, size = np.float64(x), x.shape[-1] // groups
    output = np.empty_like(x)
    for sample, out, a, b in zip(x, output, scale, shift, strict=True):
        for g in range(groups):
            at = slice(g * size, (g + 1) * size)
            normed = (sample[..., at] - sample[..., at].mean()) / sample[..., at].std()
            out[..., at] = normed * (gamma[at] + a[at]) + (beta[at] + b[at])
    return output


@pytest.mark.parametrize("shape", [(3, 5, 6), (3, 4, 2, 6), (2, 3, 2, 2, 6)])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_it_is_the_formula(shape, groups):
    layer = randomised(GroupNorm(groups, epsilon=0.0), 6)
    gamma, beta = (ops.convert_to_numpy(weight) for weight in layer.weights)
    x, modulation = data(*shape), data(shape[0], 12)
    scale, shift = np.split(modulation, 2, axis=-1)
    for given, a, b in [((modulation,), scale, shift), ((), 0 * scale, 0 * shift)]:
        expected = naive(x, gamma, beta, groups, a, b)
        found = ops.convert_to_numpy(layer(x, *given))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_without_a_condition_it_is_that_of_keras():
    ours = randomised(GroupNorm(2), 6)
    theirs = randomised(keras.layers.GroupNormalization(2, epsilon=1e-5), 6)
    x = data(3, 5, 6)
    np.testing.assert_allclose(
        ops.convert_to_numpy(ours(x)), ops.convert_to_numpy(theirs(x)), rtol=1e-4, atol=1e-5
    )


def test_a_large_mean_does_not_cost_the_variance():
    x = data(2, 50, 4)  # E x^2 - (E x)^2 in float32 would have no digit left
    layer = GroupNorm(2)
    found, expected = (ops.convert_to_numpy(layer(y)) for y in (x + np.float32(4096), x))
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_statistics_are_float32(policy):
    # The square of 300 is above the numbers of float16, and 1000 summands above those of bfloat16.
    x = np.where(np.arange(4000) % 2, 300.0, -300.0).reshape(1, 1000, 4).astype("float32")
    layer = GroupNorm(2, dtype=policy)
    output = layer(ops.cast(x, layer.compute_dtype))
    assert keras.backend.standardize_dtype(output.dtype) == layer.compute_dtype
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(output, "float32")), x / 300)


@pytest.mark.parametrize(
    ("groups", "shape"), [(3, (2, 5, 4)), (8, (2, 5, 4)), (2, (2, 4)), (0, (2, 5, 4))]
)
def test_errors(groups, shape):
    with pytest.raises(ValueError, match="group"):
        GroupNorm(groups)(np.ones(shape, "float32"))
