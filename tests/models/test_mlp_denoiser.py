import keras
import numpy as np
import pytest
from keras import ops

from keras_ext.models import MLPDenoiser

INPUTS = {
    "x": np.random.default_rng(1).normal(size=(3, 2)).astype("float32"),
    "t": np.array([0.0, 0.3, 1.0], "float32"),
    "label": np.array([0, 3, 2], "int32"),
}
TIMED = {name: INPUTS[name] for name in ("x", "t")}


def randomised(network):
    """The network with random weights: at first its output is 0."""
    rng = np.random.default_rng(0)
    for weight in network.trainable_weights:
        weight.assign(rng.normal(size=weight.shape, scale=0.5))
    return network


def output(network, inputs):
    return ops.convert_to_numpy(ops.cast(network(inputs), "float32"))


def naive(network, x, t, label):
    """The formula, one sample at a time, in float64."""

    def weights(name):
        return [np.float64(ops.convert_to_numpy(w)) for w in network.get_layer(name).weights]

    def dense(name, x):
        kernel, *bias = weights(name)
        return x @ kernel + sum(bias)

    def norm(name, x):
        gamma, beta = weights(name)
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * gamma + beta

    def swish(x):
        return x / (1 + np.exp(-x))

    dim = network.hidden_dim
    angles = [1000 * float(t) * 10000 ** (-2 * i / dim) for i in range(dim // 2)]
    c = dense("Time-Dense", np.array([*np.sin(angles), *np.cos(angles)]))
    c = dense("Time-Output", swish(c))
    c = swish(c + weights("Label-Embedding")[0][label])
    x = dense("Input-Dense", np.float64(x))
    for i in range(network.num_layers):
        y = dense(f"Block-{i}-Dense-0", norm(f"Block-{i}-Norm", x))
        x = x + dense(f"Block-{i}-Dense-1", swish(y + dense(f"Block-{i}-Condition", c)))
    return dense("Output-Dense", swish(norm("Output-Norm", x)))


def test_it_is_the_formula():
    network = randomised(MLPDenoiser(2, hidden_dim=6, num_layers=2, num_classes=3, dropout=0.5))
    expected = [naive(network, *sample) for sample in zip(*INPUTS.values(), strict=True)]
    np.testing.assert_allclose(output(network, INPUTS), expected, rtol=2e-4, atol=2e-4)


def test_it_begins_as_zero():
    network = MLPDenoiser(2, hidden_dim=8)
    np.testing.assert_array_equal(output(network, TIMED), np.zeros((3, 2)))


def test_it_learns():
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(256, 2)).astype("float32"), rng.uniform(size=256).astype("float32")
    network = MLPDenoiser(2, hidden_dim=16, num_layers=1)
    network.compile(keras.optimizers.Adam(0.02), "mse")
    target = x * t[:, None]
    for _ in range(100):
        network.train_on_batch({"x": x, "t": t}, target)
    error = np.mean((output(network, {"x": x, "t": t}) - target) ** 2)
    assert error < 0.1 * np.mean(target**2)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_tells_the_last_two_of_a_thousand_steps_apart(policy):
    exact, network = (randomised(MLPDenoiser(2, 32, dtype=p)) for p in ("float32", policy))
    inputs = {"x": np.ones((2, 2), "float32"), "t": np.array([0.999, 1.0], "float32")}
    expected, found = output(exact, inputs), output(network, inputs)
    step = expected[1] - expected[0]
    assert np.abs(found[1] - found[0] - step).max() < 0.2 * np.abs(step).max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_dim": 0}, "input_dim"),
        ({"input_dim": (2,)}, "input_dim"),
        ({"hidden_dim": 7}, "dim must be even"),
        ({"num_layers": 0}, "num_layers"),
        ({"num_classes": 0}, "num_classes"),
        ({"dropout": 1.0}, "dropout in"),
        ({"dropout": "none"}, "dropout"),
    ],
    ids=str,
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLPDenoiser(**{"input_dim": 2, **arguments})
