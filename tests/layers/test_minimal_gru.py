import keras
import numpy as np
import pytest
from gradients import to_numpy, value_and_gradient

from keras_ext.layers import MinimalGRU

MASK = np.array([[1, 1, 0, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]], "bool")


def reference(layer, x, mask, state):
    """The formula of the docstring, step by step in float64."""
    kernel, bias = (to_numpy(w).astype("float64") for w in layer.weights)
    states = []
    for t in range(x.shape[1]):
        z, c = np.split(x[:, t] @ kernel + bias, 2, axis=-1)
        z = mask[:, t, None] / (1 + np.exp(-z))
        state = (1 - z) * state + z * np.tanh(c)
        states.append(state)
    return np.stack(states, axis=1)


@pytest.fixture
def layer():
    layer = MinimalGRU(4, "tanh", return_state=True)
    layer.build((None, None, 3))
    layer.weights[1].assign(np.linspace(-1, 1, 8))
    return layer


def test_is_the_formula(layer, rng):
    x, state = (
        rng.normal(size=(3, 5, 3)).astype("float32"),
        rng.normal(size=(3, 4)).astype("float32"),
    )
    for mask in (None, MASK):
        outputs, last = layer(x, mask=mask, initial_state=[state])
        expected = reference(layer, x, np.ones_like(MASK) if mask is None else mask, state)
        np.testing.assert_allclose(to_numpy(outputs), expected, atol=1e-6)
        np.testing.assert_allclose(to_numpy(last), expected[:, -1], atol=1e-6)


def test_what_is_masked_has_no_gradient_and_may_be_nan(layer, rng):
    x, state = (
        rng.normal(size=(3, 5, 3)).astype("float32"),
        rng.normal(size=(3, 4)).astype("float32"),
    )
    _, (gradient, of_state) = value_and_gradient(lambda x, s: layer(x, MASK, s)[0], x, state)
    assert np.all((gradient != 0).any(-1) == MASK)
    assert np.all(of_state[2] == 5)
    x[~MASK] = np.nan
    assert np.isfinite(to_numpy(layer(x, mask=MASK)[0])).all()


def test_the_weights_learn_nothing_of_what_is_masked(layer, rng):
    x = rng.normal(size=(3, 5, 3)).astype("float32")
    values = [to_numpy(weight.value) for weight in layer.weights]
    seen = []
    for hidden in (0, 7, np.nan):
        filled = np.where(MASK[..., None], x, np.float32(hidden))

        def outputs(*values, filled=filled):
            with keras.StatelessScope(zip(layer.weights, values, strict=True)):
                return layer(filled, mask=MASK)[0]

        seen.append(value_and_gradient(outputs, *values)[1])
    for gradients in zip(*seen, strict=True):
        assert np.any(gradients[0])
        for gradient in gradients[1:]:
            np.testing.assert_array_equal(gradient, gradients[0])


def test_steps_give_what_the_sequence_gives(layer, rng):
    x = rng.normal(size=(3, 40, 3)).astype("float32")
    state, outputs = layer.initial_state(3), []
    for t in range(x.shape[1]):
        output, state = layer.step(x[:, t], state)
        outputs.append(to_numpy(output))
    np.testing.assert_allclose(np.stack(outputs, 1), to_numpy(layer(x)[0]), atol=1e-6)


def test_a_long_sequence_in_bfloat16_accumulates_in_float32():
    """A gate of sigmoid(-7), 0.0009, would change nothing beside a state of 0.5 in bfloat16."""
    layer = MinimalGRU(1, dtype="mixed_bfloat16")
    layer.build((None, None, 1))
    layer.set_weights([np.zeros((1, 2)), np.array([-7.0, 1.0])])
    last = float(to_numpy(layer(np.zeros((1, 3000, 1))))[0, -1, 0])
    assert abs(last - (1 - (1 - 1 / (1 + np.exp(7))) ** 3000)) < 0.01


def test_learns_in_a_model(rng):
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, MinimalGRU(4, return_sequences=False)(inputs))
    model.compile("adam", "mse")
    x, y = rng.normal(size=(8, 5, 3)), rng.normal(size=(8, 4))
    losses = model.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert losses[2] < losses[0]


def test_wrong_arguments():
    for units in (0, 2.5, "a"):
        with pytest.raises(ValueError, match=f"Received: units={units!r}"):
            MinimalGRU(units)
    with pytest.raises(ValueError, match=r"\(b, n, k\)"):
        MinimalGRU(2)(np.ones((2, 3)))
