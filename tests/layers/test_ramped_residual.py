import keras
import numpy as np
import pytest
from gradients import to_numpy, value_and_gradient

from keras_ext.layers.ramped_residual import MOST_STEPS, RampedResidual


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, 3, 4)).astype("float32") for _ in range(2)]


def test_the_branch_comes_in_linearly_in_training_only(pair):
    layer, (x, branch) = RampedResidual(5), pair
    for call in range(8):
        expected = x + min(call / 5, 1) * branch
        for _ in range(2):
            np.testing.assert_allclose(np.array(layer(pair)), expected, atol=1e-6)
        np.testing.assert_allclose(np.array(layer(pair, training=True)), expected, atol=1e-6)
    assert float(layer.counter.value) == 5 and layer.trainable_weights == []


def test_the_gradient_of_the_branch_is_the_share_that_it_has(pair):
    layer = RampedResidual(4)
    layer.build([(2, 3, 4)] * 2)
    for count in (0, 1, 4):
        layer.counter.assign(count)
        _, gradients = value_and_gradient(lambda x, f: layer([x, f]), *pair)
        np.testing.assert_array_equal(gradients[0], np.ones((2, 3, 4)))
        np.testing.assert_array_equal(gradients[1], np.full((2, 3, 4), count / 4))


@pytest.mark.parametrize("jit", [False, True])
def test_it_counts_the_steps_of_fit_and_is_saved(pair, tmp_path, jit):
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, RampedResidual(10)([inputs, keras.layers.Dense(4)(inputs)]))
    x = np.repeat(pair[0], 3, axis=0)
    np.testing.assert_array_equal(np.array(model(x)), x)  # the identity, before training
    model.compile("sgd", "mse", jit_compile=jit)
    model.fit(x, x + 1, batch_size=2, epochs=2, validation_data=(x, x + 1), verbose=0)
    assert float(model.layers[-1].counter.value) == 6
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert float(again.layers[-1].counter.value) == 6
    np.testing.assert_array_equal(np.array(again(x)), np.array(model(x)))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_half_precision_counts_beyond_what_it_can_count_itself(pair, policy):
    layer = RampedResidual(5000, dtype=policy)
    layer.build([(2, 3, 4)] * 2)
    layer.counter.assign(4096)  # float16 cannot add 1 to that, bfloat16 not to 256
    for _ in range(3):
        output = layer(pair, training=True)
    assert float(layer.counter.value) == 4099
    assert keras.backend.standardize_dtype(output.dtype) == layer.compute_dtype
    expected = pair[0] + 4098 / 5000 * pair[1]
    assert np.abs(to_numpy(output).astype("float32") - expected).max() < 0.03


def test_the_mask_is_handed_on(pair):
    tokens = np.array([[3, 1, 0]])
    x = keras.layers.Embedding(4, 4, mask_zero=True)(tokens)
    output = RampedResidual(3)([x, keras.ops.ones((1, 3, 4))])
    assert np.array_equal(to_numpy(output._keras_mask), tokens > 0)


@pytest.mark.parametrize("steps", [0, -3, MOST_STEPS + 1])
def test_bad_steps_are_refused(steps):
    with pytest.raises(ValueError, match=f"from 1 to {MOST_STEPS}. Received: steps={steps}"):
        RampedResidual(steps)


def test_what_is_no_pair_is_refused(pair):
    for inputs in (pair[0], [pair[0]], [pair[0], pair[1][..., :2]]):
        with pytest.raises(ValueError, match="residual and a branch.*Received: input_shape="):
            RampedResidual(3)(inputs)


def test_of_each_axis_the_known_length_counts():
    inputs = [keras.KerasTensor((None, 5, None)), keras.KerasTensor((2, None, 4))]
    assert RampedResidual(3)(inputs).shape == (2, 5, 4)
    with pytest.raises(ValueError, match="residual and a branch.*Received: input_shape="):
        RampedResidual(3)([inputs[0], keras.KerasTensor((2, 6, 4))])
