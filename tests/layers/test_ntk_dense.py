import math

import keras
import numpy as np
import pytest
from gradients import to_numpy, value_and_gradient

from keras_ext.layers.ntk_dense import NTKDense


def test_output_is_that_of_the_formula():
    layer = NTKDense(3, activation="tanh")
    x = np.random.default_rng(0).normal(size=(2, 4, 5)).astype("float32")
    layer.build(x.shape)
    rng = np.random.default_rng(1)
    kernel, bias = rng.normal(size=(5, 3)), rng.normal(size=3)
    layer.set_weights([kernel, bias])
    expected = np.tanh(np.einsum("bnm,mu->bnu", x, kernel) / math.sqrt(5) + bias)
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-6)


def test_kernel_is_of_size_1_and_the_output_that_of_lecun():
    layer = NTKDense(400, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0, seed=0))
    default = NTKDense(400)
    x = np.random.default_rng(2).normal(size=(50, 300)).astype("float32")
    for one in (layer, default):
        output = to_numpy(one(x))
        assert one.kernel.shape == (300, 400)
        assert np.std(to_numpy(one.kernel)) == pytest.approx(1, abs=0.02)
        assert np.mean(output**2) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("inputs", [4, 400])
def test_a_step_of_sgd_moves_the_product_by_one_over_the_number_of_inputs(inputs):
    """Beside a dense layer of the same function, the effective kernel moves 1 / m as far."""
    x = np.random.default_rng(3).normal(size=(6, inputs)).astype("float32")
    ours, dense = NTKDense(2, use_bias=False), keras.layers.Dense(2, use_bias=False)
    ours.build(x.shape)
    dense.build(x.shape)
    dense.set_weights([ours.get_weights()[0] / math.sqrt(inputs)])
    np.testing.assert_allclose(to_numpy(ours(x)), to_numpy(dense(x)), rtol=1e-3, atol=1e-5)

    def gradient(layer):
        def squares(kernel):
            with keras.StatelessScope([(layer.kernel, kernel)]):
                return layer(x) ** 2

        return value_and_gradient(squares, layer.get_weights()[0])[1][0]

    effective = gradient(ours) / math.sqrt(inputs)
    np.testing.assert_allclose(effective, gradient(dense) / inputs, rtol=1e-3, atol=1e-4)


def test_float16_holds_what_the_product_of_kernels_of_size_1_would_not():
    layer = NTKDense(2, kernel_initializer="ones", dtype="mixed_float16")
    x = np.full((1, 10000), 100.0, "float32")  # the sum is 1e6, the output 1e4
    np.testing.assert_allclose(
        to_numpy(layer(x)).astype("float32"), np.full((1, 2), 1e4), rtol=0.01
    )


def test_the_root_is_not_rounded_in_half_precision():
    """In bfloat16 the third of a number would be 0.2 % larger, of every number."""
    layer = NTKDense(9, kernel_initializer="identity", use_bias=False, dtype="mixed_bfloat16")
    x = to_numpy(keras.random.uniform((500, 9), 1, 2, dtype="bfloat16", seed=0)).astype("float32")
    thirds = to_numpy(keras.ops.cast(layer(x), "float32"))
    np.testing.assert_allclose(np.mean(3 * thirds / x), 1.0, atol=3e-4)


def test_units_below_1_are_refused():
    with pytest.raises(ValueError, match="positive. Received: units=0"):
        NTKDense(0)
