import math

import keras
import numpy as np
import pytest
from gradients import to_numpy
from harness_backend import compiled

from keras_ext import activations
from keras_ext.initializers import ActivationScaling, MeanVarianceScaling, activation_gain
from keras_ext.layers.scanned_blocks import ScannedBlocks

PHI = math.erfc(math.sqrt(0.5)) / 2  # P(z > 1)
DENSITY = math.exp(-0.5) / math.sqrt(2 * math.pi)  # of N(0, 1) at 1


@pytest.mark.parametrize(
    ("activation", "square"),
    [
        ("linear", 1.0),
        ("relu", 1 / 2),
        (lambda x: keras.ops.square(keras.ops.relu(x)), 3 / 2),
        ("exponential", math.exp(2)),
        # E[(e^z - 1)^2] for z < 0, by completing the square, and 1/2 for z > 0.
        (
            "elu",
            1 / 2 + math.exp(2) * math.erfc(2**0.5) / 2 - math.exp(0.5) * math.erfc(0.5**0.5) + 0.5,
        ),
        # z^2 within (-1, 1), and 1 outside.
        ("hard_tanh", 1 - 2 * PHI - 2 * DENSITY + 2 * PHI),
        (lambda x: keras.ops.sin(3 * x), (1 - math.exp(-18)) / 2),
    ],
    ids=["linear", "relu", "relu^2", "exponential", "elu", "hard_tanh", "sine"],
)
def test_gain_is_that_of_the_closed_form(activation, square):
    assert activation_gain(activation) == pytest.approx(square**-0.5, rel=2e-6)


@pytest.mark.parametrize(
    ("activation", "squared_gain"),
    [
        ("gelu", 2.3517),
        ("silu", 2.8108),
        ("tanh", 2.5362),
        ("sigmoid", 3.4086),
        ("softplus", 1.0855),
        ("selu", 1.0),  # its constants were chosen for this
    ],
)
def test_gain_is_the_known_one(activation, squared_gain):
    assert activation_gain(activation) ** 2 == pytest.approx(squared_gain, abs=6e-5)


def test_gain_of_this_packages_activation_is_found_by_name():
    by_function = activation_gain(activations.gelu_tanh)
    assert activation_gain("gelu_tanh") == by_function
    assert by_function == pytest.approx(activation_gain("gelu"), rel=1e-3)
    assert by_function != activation_gain("gelu")


@pytest.mark.parametrize(
    ("activation", "match"),
    [
        ("softmax", "element by element. Received: activation='softmax'"),
        (keras.ops.zeros_like, "positive and finite, not 0.0"),
        (lambda x: keras.ops.exp(x * x), "positive and finite, not (inf|nan)"),
        ("gleu", "gleu"),
    ],
)
def test_functions_without_a_gain_are_refused(activation, match):
    with pytest.raises(ValueError, match=match):
        activation_gain(activation)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "gelu_tanh", "tanh", "sigmoid", "softplus"])
def test_a_deep_chain_keeps_the_size_of_what_goes_into_the_activation(activation):
    function, rng, squares = activations.get(activation), np.random.default_rng(0), []
    for trial in range(8):
        x = rng.normal(size=(8, 256)).astype("float32")
        for layer in range(6):
            kernel = to_numpy(ActivationScaling(activation, seed=10 * trial + layer)((256, 256)))
            x = to_numpy(function(keras.ops.convert_to_tensor(x))) @ kernel
        squares.append(np.mean(x**2))
    # One chain is off by about a third. The gain of relu would make that of gelu 0.4.
    assert np.mean(squares) == pytest.approx(1, abs=0.35)


def test_scaling_of_relu_and_linear_is_hes_and_lecuns():
    shape = (3, 20, 30)
    for ours, keras_own in [
        (ActivationScaling("relu", seed=1), keras.initializers.HeNormal(seed=1)),
        (ActivationScaling("linear", seed=1), keras.initializers.LecunNormal(seed=1)),
        (
            ActivationScaling("relu", "fan_out", "uniform", seed=1),
            keras.initializers.VarianceScaling(2.0, "fan_out", "uniform", seed=1),
        ),
    ]:
        np.testing.assert_allclose(to_numpy(ours(shape)), to_numpy(keras_own(shape)), rtol=1e-5)


@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        ("arithmetic", 250.0),
        ("geometric", 200.0),
        ("harmonic", 160.0),
        ("quadratic", math.sqrt((100**2 + 400**2) / 2)),
        ("contraharmonic", 340.0),
        (0, 200.0),
        (3, ((100**3 + 400**3) / 2) ** (1 / 3)),
        (-2, ((100**-2 + 400**-2) / 2) ** (-1 / 2)),
        (1000, 400 * 0.5**0.001),
        (-1000, 100 * 2**0.001),
    ],
)
def test_variance_is_one_over_the_mean(mean, expected):
    initializer = MeanVarianceScaling(1.5, mean, "uniform", seed=2)
    for shape in [(100, 400), (400, 100), (5, 5, 4, 16)]:
        bound = math.sqrt(3 * 1.5 / expected)  # a uniform variable has a third of its square
        largest = np.abs(to_numpy(initializer(shape))).max()
        assert bound * 0.99 < largest <= bound * 1.000001


@pytest.mark.parametrize("distribution", ["truncated_normal", "untruncated_normal", "uniform"])
def test_variance_is_the_same_in_every_distribution(distribution):
    kernel = to_numpy(MeanVarianceScaling(1.5, "geometric", distribution, seed=2)((100, 400)))
    assert kernel.var() * 200 / 1.5 == pytest.approx(1, abs=0.03)
    assert abs(kernel.mean()) < 0.02 * kernel.std()


def test_arithmetic_is_glorots():
    for shape in [(6, 10), (3, 3, 2, 4), (7,)]:
        ours = MeanVarianceScaling(distribution="uniform", seed=3)(shape)
        glorot = keras.initializers.GlorotUniform(seed=3)(shape)
        np.testing.assert_allclose(to_numpy(ours), to_numpy(glorot), rtol=1e-5)


def test_means_are_in_their_order_and_agree_on_square_kernels():
    means = ["harmonic", "geometric", "arithmetic", "quadratic", "contraharmonic"]
    deviations = [
        to_numpy(MeanVarianceScaling(mean=mean, seed=4)((20, 80))).std() for mean in means
    ]
    assert deviations == sorted(deviations, reverse=True)
    square = [to_numpy(MeanVarianceScaling(mean=mean, seed=4)((9, 9))) for mean in means]
    for kernel in square[1:]:
        np.testing.assert_allclose(kernel, square[0], rtol=1e-5)


@pytest.mark.parametrize(("mean", "gain"), [("arithmetic", 0.64), ("geometric", 1.0)])
def test_forward_gain_of_a_wide_block(mean, gain):
    initializer = MeanVarianceScaling(mean=mean, seed=keras.random.SeedGenerator(5))
    x = np.random.default_rng(1).normal(size=(64, 128))
    up, down = to_numpy(initializer((128, 512))), to_numpy(initializer((512, 128)))
    assert np.mean((x @ up @ down) ** 2) == pytest.approx(gain, rel=0.1)
    assert np.mean((x @ down.T @ up.T) ** 2) == pytest.approx(gain, rel=0.1)


def test_kerass_truncated_normal_is_narrower_than_it_says():
    """What the docstring says of both."""
    kernel = to_numpy(keras.initializers.TruncatedNormal(stddev=0.02, seed=6)((400, 400)))
    assert kernel.std() == pytest.approx(0.0176, abs=1e-4)
    assert (kernel.std() / 0.02) ** 2 == pytest.approx(0.7737, abs=0.005)
    corrected = to_numpy(MeanVarianceScaling(seed=6)((400, 400)))
    assert corrected.std() == pytest.approx(400**-0.5, rel=0.01)
    assert np.abs(corrected).max() <= 2 * 1.1368472 * 400**-0.5 + 1e-6


@pytest.mark.parametrize(
    "initializer",
    [
        ActivationScaling("gelu", "fan_avg", "uniform", seed=7),
        ActivationScaling(activations.gelu_tanh, seed=7),
        MeanVarianceScaling(2.0, "geometric", "untruncated_normal", seed=7),
        MeanVarianceScaling(mean=-0.5, seed=7),
    ],
    ids=lambda initializer: type(initializer).__name__,
)
def test_an_initializer_is_restored_from_its_config(initializer):
    config = keras.initializers.serialize(initializer)
    again = keras.initializers.deserialize(config)
    assert keras.initializers.serialize(again) == config
    assert config["registered_name"] == f"keras_ext>{type(initializer).__name__}"
    expected = to_numpy(initializer((5, 6)))
    np.testing.assert_array_equal(to_numpy(again((5, 6))), expected)
    np.testing.assert_array_equal(to_numpy(initializer.clone()((5, 6))), expected)
    layer = keras.layers.Dense(6, kernel_initializer=initializer, dtype="mixed_bfloat16")
    layer.build((None, 5))
    np.testing.assert_array_equal(layer.get_weights()[0], expected)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: MeanVarianceScaling(mean="median"), "'geometric'.*Received: mean='median'"),
        (lambda: MeanVarianceScaling(mean=math.inf), "finite power. Received: mean=inf"),
        (lambda: MeanVarianceScaling(scale=0.0), "scale"),
        (lambda: MeanVarianceScaling(distribution="cauchy"), "cauchy"),
        (lambda: ActivationScaling("relu", mode="fan_on"), "fan_on"),
    ],
)
def test_bad_arguments_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_a_gain_is_computed_once_and_outside_compiled_functions():
    kept = []

    def slope(x):
        kept.append(x)
        return 3 * x

    def step(x):
        return x * activation_gain(slope)

    x = keras.ops.ones((2,))
    with pytest.raises(ValueError, match="outside compiled functions.*slope.*traced"):
        compiled(step)(x)
    gain = activation_gain(slope)
    calls = len(kept)
    np.testing.assert_allclose(to_numpy(compiled(step)(x)), gain, rtol=1e-6)
    assert gain == pytest.approx(1 / 3) and len(kept) == calls


def test_a_stack_that_is_built_while_it_is_traced_finds_its_gain():
    scaling = ActivationScaling("gelu")
    model = keras.Sequential(
        [ScannedBlocks(keras.layers.Dense(6, "gelu", kernel_initializer=scaling), 3)]
    )
    model.compile("sgd", "mse")
    x = np.ones((2, 6), "float32")
    model.fit(x, x, verbose=0)
    assert model.weights[0].shape == (3, 6, 6)
