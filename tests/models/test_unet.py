import keras
import numpy as np
import pytest
from keras import ops

from keras_ext.models import UNet

TINY = {"channels": (4, 8), "groups": 2, "num_heads": 2, "blocks_per_level": 1}


def randomised(network, seed=0):
    """The network with random weights: at first its output is 0."""
    rng = np.random.default_rng(seed)
    for weight in network.trainable_weights:
        weight.assign(rng.normal(size=weight.shape, scale=0.3))
    return network


def batch(shape, count=3, **others):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(count, *shape)).astype("float32")
    return {"x": x, "t": np.linspace(0.1, 0.9, count).astype("float32"), **others}


def output(network, inputs):
    return ops.convert_to_numpy(ops.cast(network(inputs), "float32"))


def distance(left, right):
    return np.abs(left - right).max()


@pytest.mark.parametrize("shape", [(8, 8, 1), (7, 5, 3), (1, 1, 2), (2, 9, 1), (7, 2), (1, 3)])
def test_any_size_comes_back_and_begins_as_zero(shape):
    # Keras warns of a softmax over a single position.
    levels = (0,) if np.prod(shape[:-1]) > 1 else ()
    network = UNet(shape, (4, 4, 8), levels, 1, groups=2, num_heads=2)
    inputs = batch(shape)
    np.testing.assert_array_equal(output(network, inputs), np.zeros_like(inputs["x"]))
    assert output(randomised(network), inputs).std() > 0.01


def test_at_first_only_the_last_convolution_learns_and_then_all():
    network = UNet((5, 5, 1), **TINY, attention_levels=(1,), num_classes=2)
    inputs = batch((5, 5, 1), label=np.array([0, 1, 2], "int32"))
    network.compile(keras.optimizers.SGD(1.0), "mse")
    started = [ops.convert_to_numpy(weight) for weight in network.trainable_weights]
    for _ in range(3):  # the output, the last convolutions of the blocks, all
        network.train_on_batch(inputs, np.ones_like(inputs["x"]))
    same = [
        weight.path
        for weight, before in zip(network.trainable_weights, started, strict=True)
        if np.array_equal(ops.convert_to_numpy(weight), before)
    ]
    assert all("key/bias" in path for path in same), same  # that the softmax never sees


def test_samples_of_a_batch_are_independent():
    network = randomised(UNet((7, 6, 2), **TINY, attention_levels=(0, 1)))
    inputs = batch((7, 6, 2))
    together = output(network, inputs)
    for i in range(3):
        alone = output(network, {name: x[i : i + 1] for name, x in inputs.items()})
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 6, 1), (6, 2)])
def test_the_output_depends_on_time_and_label(shape):
    network = randomised(UNet(shape, **TINY, num_classes=3))
    inputs = batch(shape, label=np.array([0, 1, 3], "int32"))
    first = output(network, inputs)
    later = output(network, {**inputs, "t": inputs["t"] + np.float32([0, 0.001, 0])})
    other = output(network, {**inputs, "label": np.array([0, 1, 2], "int32")})
    changed = [[distance(first[i], x[i]) > 1e-3 for i in range(3)] for x in (later, other)]
    assert changed == [[False, True, False], [False, False, True]]


def test_no_class_has_a_row_of_its_own():
    network = randomised(UNet((4, 4, 1), **TINY, num_classes=3))
    table = network.get_layer("Label-Embedding").embeddings
    assert tuple(table.shape) == (4, 16)
    inputs = batch((4, 4, 1), label=np.array([0, 1, 3], "int32"))
    first = output(network, inputs)
    table.assign(ops.convert_to_numpy(table) * np.array([[1], [1], [1], [2]]))
    second = output(network, inputs)
    assert distance(first[:2], second[:2]) == 0 < 1e-3 < distance(first[2], second[2])


def test_far_from_the_borders_it_follows_a_translation():
    # One level without attention, norms that change nothing: two blocks see five positions around.
    network = randomised(UNet((32, 1), (4,), blocks_per_level=1, groups=2))
    x = np.zeros((1, 32, 1), "float32")
    x[0, 12:18, 0] = np.random.default_rng(0).normal(size=6)
    t = np.array([0.5], "float32")
    here = output(network, {"x": x, "t": t})[0]
    there = output(network, {"x": np.roll(x, 3, axis=1), "t": t})[0]
    np.testing.assert_allclose(there[9:26], here[6:23], rtol=1e-5, atol=1e-5)
    assert distance(here[12:18], here[15:21]) > 0.01


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_tells_the_last_two_of_a_thousand_steps_apart(policy):
    exact = randomised(UNet((4, 4, 1), **TINY))
    network = randomised(UNet((4, 4, 1), **TINY, dtype=policy))
    x = np.repeat(batch((4, 4, 1), 1)["x"], 2, axis=0)
    inputs = {"x": x, "t": np.array([0.999, 1.0], "float32")}
    expected, found = output(exact, inputs), output(network, inputs)
    step = expected[1] - expected[0]
    assert distance(found[1] - found[0], step) < 0.2 * np.abs(step).max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (8,)}, "shape of a sample"),
        ({"input_shape": (8, 8, 8, 1)}, "shape of a sample"),
        ({"input_shape": (None, 8, 1)}, "a size of input_shape"),
        ({"input_shape": (0, 8, 1)}, "a size of input_shape"),
        ({"input_shape": 8}, "tuple of ints"),
        ({"channels": ()}, "groups of the norms divide"),
        ({"channels": (4, 6)}, "groups of the norms divide"),
        ({"channels": 4}, "tuple of ints"),
        ({"attention_levels": 1}, "tuple of ints"),
        ({"attention_levels": (2,)}, "levels from 0 to 1"),
        ({"attention_levels": (-1,)}, "a level of attention_levels"),
        ({"attention_levels": (0,), "num_heads": 3}, "number of heads must divide"),
        ({"blocks_per_level": 0}, "blocks_per_level"),
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": 2.5}, "num_classes"),
        ({"dropout": 1.0}, "dropout in"),
        ({"dropout": -0.1}, "dropout in"),
        ({"groups": 0}, "groups"),
    ],
    ids=str,
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNet(**{"input_shape": (8, 8, 1), "channels": (4, 8), "groups": 4, **arguments})
