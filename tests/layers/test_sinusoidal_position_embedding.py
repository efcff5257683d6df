import math

import keras
import numpy as np
import pytest
from gradients import to_numpy

from keras_ext.layers.sinusoidal_position_embedding import SinusoidalPositionEmbedding


def reference(positions, width, base):
    """One number at a time."""
    output = np.zeros((*np.shape(positions), width))
    for index in np.ndindex(output.shape):
        angle = positions[index[:-1]] * base ** (-2 * (index[-1] // 2) / width)
        output[index] = math.cos(angle) if index[-1] % 2 else math.sin(angle)
    return output


@pytest.mark.parametrize("base", [10000.0, 10.0])
def test_sine_and_cosine_lie_side_by_side(base):
    x = np.random.default_rng(0).normal(size=(2, 5, 6)).astype("float32")
    layer = SinusoidalPositionEmbedding(base)
    expected = reference(np.arange(5), 6, base)
    np.testing.assert_allclose(to_numpy(layer(x)), x + expected, atol=1e-6)
    positions = np.array([[0, 0.5, 3, 77, 2000.25], [9, 8, 7, 6, 5]])
    for kind in ("float32", "float64", "int32"):
        given = positions.astype(kind)
        output = to_numpy(layer(x, positions=given))
        np.testing.assert_allclose(output, x + reference(given, 6, base), atol=2e-4)
    output = to_numpy(layer(x, positions=positions[1]))
    np.testing.assert_allclose(output, x + reference(positions[1], 6, base), atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_in_half_precision_only_the_result_is_rounded(policy):
    positions = np.array([[257.0, 2049.0, 4097.5]], "float32")
    layer = SinusoidalPositionEmbedding(dtype=policy)
    output = layer(np.zeros((1, 3, 8), "float32"), positions=positions)
    assert keras.backend.standardize_dtype(output.dtype) == layer.compute_dtype
    output = to_numpy(keras.ops.cast(output, "float32"))
    np.testing.assert_allclose(output, reference(positions, 8, 10000.0), atol=4e-3)


def test_products_of_two_positions_depend_on_their_distance():
    positions = np.array([[3.0, 10.5, 103.0, 110.5]], "float32")
    waves = to_numpy(SinusoidalPositionEmbedding()(np.zeros((1, 4, 16)), positions=positions))[0]
    assert waves[0] @ waves[1] == pytest.approx(waves[2] @ waves[3], abs=1e-4)
    assert waves[0] @ waves[0] == pytest.approx(8, abs=1e-4)


def test_padding_keeps_its_mask():
    embedded = keras.layers.Embedding(3, 4, mask_zero=True)(np.array([[1, 2, 0]]))
    output = SinusoidalPositionEmbedding()(embedded)
    assert to_numpy(output._keras_mask).tolist() == [[True, True, False]]


def test_an_odd_width_and_a_base_of_0_are_refused():
    with pytest.raises(ValueError, match=r"must be even. Received: input_shape=\(1, 2, 5\)"):
        SinusoidalPositionEmbedding()(np.zeros((1, 2, 5)))
    with pytest.raises(ValueError, match="above 0. Received: base=0"):
        SinusoidalPositionEmbedding(0)
