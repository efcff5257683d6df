import keras
import numpy as np
import pytest
from gradients import relative_error, value_and_gradient
from keras import ops

from keras_ext.layers.learnable_temperature import LearnableTemperature
from keras_ext.losses.info_nce import InfoNCE, info_nce


def pairs(batch=6, width=4, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, 2, width)).astype("float32")


def test_inner_products_are_cosines_divided_by_the_temperature():
    x = pairs()
    x[2, 1] = 0.0
    y = ops.convert_to_numpy(LearnableTemperature(0.2)(x))
    norms = np.linalg.norm(x, axis=-1)
    norms[2, 1] = 1.0
    cosines = np.sum(x[:, 0] * x[:, 1], axis=-1) / norms[:, 0] / norms[:, 1]
    np.testing.assert_allclose(np.sum(y[:, 0] * y[:, 1], axis=-1), cosines / 0.2, atol=1e-5)
    assert not y[2, 1].any()


def test_loss_and_gradient_are_those_of_a_loss_with_that_temperature():
    layer = LearnableTemperature(0.2)
    layer.build((None, 2, 4))
    value, (gradient,) = value_and_gradient(
        lambda x: info_nce(None, layer(x), temperature=1.0, score="dot"), pairs()
    )
    expected, (expected_gradient,) = value_and_gradient(
        lambda x: info_nce(None, x, temperature=0.2), pairs()
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert relative_error(gradient, expected_gradient) < 1e-5


def test_the_gradient_of_the_weight_is_the_derivative():
    layer = LearnableTemperature(0.2)
    layer.build((None, 2, 4))

    def loss(log_scale):
        with keras.StatelessScope([(layer.log_scale, log_scale)]):
            return info_nce(None, layer(pairs()), temperature=1.0, score="dot")

    _, (gradient,) = value_and_gradient(loss, np.array(np.log(5.0), "float32"))
    above, below = (
        ops.convert_to_numpy(info_nce(None, pairs(), temperature=0.2 * np.exp(-step))).sum()
        for step in (0.01, -0.01)
    )
    assert gradient == pytest.approx((above - below) / 0.02, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "jit_compile"), [("float32", False), ("mixed_float16", True)])
def test_training_lowers_the_temperature_to_the_minimum_and_raises_it_again(policy, jit_compile):
    """Equal texts of a pair want the least temperature; opposite ones a higher one."""
    layer = LearnableTemperature(0.2, minimum=0.1, dtype=policy)
    model = keras.Sequential([keras.Input((2, 4)), layer])
    loss = InfoNCE(temperature=1.0, score="dot")
    model.compile(keras.optimizers.Adam(0.1), loss, jit_compile=jit_compile)
    equal = np.repeat(pairs()[:, :1], 2, axis=1)
    for _ in range(20):
        model.train_on_batch(equal)
    assert float(layer.temperature) == pytest.approx(0.1, rel=1e-6)
    for _ in range(20):
        model.train_on_batch(equal * np.array([[1.0], [-1.0]], "float32"))
    assert float(layer.temperature) > 0.15


def test_output_is_float32_and_the_inputs_are_not_rounded():
    layer = LearnableTemperature(dtype="mixed_float16")
    x = pairs() * 1e6  # infinite in float16
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    np.testing.assert_array_equal(y, LearnableTemperature()(x))
    assert keras.backend.standardize_dtype(layer(keras.Input((2, 4))).dtype) == "float32"


def test_bad_arguments_raise():
    for arguments in ({"minimum": 0.0}, {"initial": 0.005}, {"initial": float("nan")}):
        with pytest.raises(ValueError, match="Received: minimum=.*initial="):
            LearnableTemperature(**arguments)
