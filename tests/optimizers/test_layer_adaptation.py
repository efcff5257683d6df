import keras
import numpy as np
import pytest
from keras import optimizers
from keras.ops import convert_to_numpy

from keras_ext.optimizers import LayerAdaptation, ParameterwiseLR, PiecewiseLinear, Tiger
from tests.optimizers.steps import stepper, values

SHAPES = {"kernel": (3, 2), "embeddings": (5, 2), "bias": (4,), "gamma": (2, 2)}


def new_variables(*names, scale=1.0):
    rng = np.random.default_rng(0)
    return [
        keras.Variable(scale * rng.normal(size=SHAPES[name]).astype("float32"), name=name)
        for name in names
    ]


def gradients_of(variables, step):
    rng = np.random.default_rng(10 + step)
    return [rng.normal(size=v.shape).astype("float32") for v in variables]


def trained(optimizer, variables, steps=4, **options):
    step = stepper(optimizer, variables, **options)
    for i in range(steps):
        step(gradients_of(variables, i))
    return values(variables)


def lamb_of(weight, gradients, rate, decay, size=lambda norm: norm):
    """LAMB as published: the decay is part of the update whose norm counts."""
    first, second, weight = 0.0, 0.0, weight.astype("float64")
    for t, gradient in enumerate(gradients, start=1):
        first = 0.9 * first + 0.1 * gradient.astype("float64")
        second = 0.999 * second + 0.001 * gradient.astype("float64") ** 2
        update = first / (1 - 0.9**t) / np.sqrt(second / (1 - 0.999**t)) + decay * weight
        ratio = size(np.linalg.norm(weight)) / np.linalg.norm(update)
        weight = weight - rate * ratio * update
    return weight


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("xla", [False, True])
def test_around_adamw_it_is_lamb(decay, xla):
    variables = new_variables("kernel", "bias")
    start = convert_to_numpy(variables[0])
    gradients = [gradients_of(variables, step)[0] for step in range(4)]
    adamw = optimizers.AdamW(0.05, weight_decay=decay, epsilon=1e-12)
    kernel, _ = trained(LayerAdaptation(adamw), variables, jit_compile=xla)
    expected = lamb_of(start, gradients, 0.05, decay)
    np.testing.assert_allclose(kernel, expected, rtol=0, atol=2e-6)


def test_without_decay_it_is_the_lamb_of_keras():
    names = ["kernel", "gamma"]
    adapted = LayerAdaptation(optimizers.Adam(0.05, epsilon=1e-12), exclude="bias")
    actual = trained(adapted, new_variables(*names, "bias"))
    expected = trained(optimizers.Lamb(0.05, epsilon=1e-12), new_variables(*names))
    for left, right in zip(actual, expected, strict=False):
        np.testing.assert_allclose(left, right, rtol=0, atol=2e-6)


@pytest.mark.parametrize("inner", [optimizers.SGD, optimizers.RMSprop, optimizers.Lion])
def test_the_learning_rate_is_the_relative_change_of_a_weight(inner):
    variables = new_variables("kernel", "embeddings")
    step = stepper(LayerAdaptation(inner(0.02)), variables)
    for i in range(3):
        before = values(variables)
        step(gradients_of(variables, i))
        for old, new in zip(before, values(variables), strict=True):
            change = np.linalg.norm(new - old) / np.linalg.norm(old)
            np.testing.assert_allclose(change, 0.02, rtol=2e-5)


def test_a_schedule_gives_the_rate_of_the_update_itself():
    (kernel,) = variables = new_variables("kernel")
    rates = PiecewiseLinear([[0, 0.1], [1, 0.0], [2, 0.025]])
    step = stepper(LayerAdaptation(optimizers.Lion(rates)), variables)
    for i, rate in enumerate([0.1, 0.0, 0.025, 0.025]):
        before = convert_to_numpy(kernel)
        step(gradients_of(variables, i))
        change = np.linalg.norm(convert_to_numpy(kernel) - before) / np.linalg.norm(before)
        np.testing.assert_allclose(change, rate, rtol=1e-5)


@pytest.mark.parametrize(
    ("exclude", "untouched"),
    [(None, {"bias", "gamma"}), ("bias|embed", {"bias", "embeddings"}), ("kernel", {"kernel"})],
)
def test_what_is_excluded_has_the_update_of_the_inner_optimizer(exclude, untouched):
    adapted = LayerAdaptation(optimizers.Adam(0.05), exclude)
    actual = trained(adapted, new_variables(*SHAPES))
    expected = trained(optimizers.Adam(0.05), new_variables(*SHAPES))
    equal = {name for name, a, e in zip(SHAPES, actual, expected, strict=True) if (a == e).all()}
    assert equal == untouched


def test_weights_of_0_move_as_the_inner_optimizer_moves_them():
    adapted = trained(LayerAdaptation(optimizers.Adam(0.05)), new_variables("kernel", scale=0), 1)
    plain = trained(optimizers.Adam(0.05), new_variables("kernel", scale=0), 1)
    np.testing.assert_array_equal(adapted, plain)


def test_without_a_gradient_nothing_moves():
    (kernel,) = variables = new_variables("kernel")
    start = convert_to_numpy(kernel)
    stepper(LayerAdaptation(optimizers.SGD(0.1)), variables)([np.zeros((3, 2), "float32")])
    np.testing.assert_array_equal(kernel.numpy(), start)


@pytest.mark.parametrize(
    ("clip", "size"), [([2.0, None], 2.0), ([None, 0.5], 0.5), ([0.0, 9.0], 1.0), ([3, 4], 3.0)]
)
def test_clip_bounds_the_root_mean_square_of_the_weight(clip, size):
    kernel = keras.Variable(np.array([[1.0, -1.0], [1.0, 1.0]], "float32"), name="kernel")
    (after,) = trained(LayerAdaptation(optimizers.Lion(0.1), clip=clip), [kernel], 1)
    change = np.abs(after - [[1.0, -1.0], [1.0, 1.0]])
    np.testing.assert_allclose(change, 0.1 * size, rtol=1e-5)


def test_a_lower_bound_moves_weights_of_0():
    optimizer = LayerAdaptation(optimizers.Lion(0.5), clip=[1e-3, None])
    (kernel,) = trained(optimizer, new_variables("kernel", scale=0.0), 1)
    np.testing.assert_allclose(np.abs(kernel), 0.5e-3, rtol=1e-5)


def test_rows_are_adapted_each_by_itself():
    (table,) = variables = new_variables("embeddings")
    optimizer = LayerAdaptation(optimizers.SGD(0.1), rowwise="embeddings$")
    before, gradient = convert_to_numpy(table), gradients_of(variables, 0)[0]
    gradient[2] = 0.0
    stepper(optimizer, variables)([gradient])
    change = np.linalg.norm(table.numpy() - before, axis=1) / np.linalg.norm(before, axis=1)
    np.testing.assert_allclose(change, [0.1, 0.1, 0.0, 0.1, 0.1], rtol=1e-5)


def test_multipliers_inside_multiply_the_relative_change():
    variables = new_variables("kernel", "embeddings", "bias")
    before = values(variables)
    rules = ParameterwiseLR(optimizers.Adam(0.1), [["kernel", 0.25], ["bias", 0.0]])
    after = trained(LayerAdaptation(rules), variables, 1)
    changes = [
        np.linalg.norm(new - old) / np.linalg.norm(old)
        for new, old in zip(after, before, strict=True)
    ]
    np.testing.assert_allclose(changes, [0.025, 0.1, 0.0], rtol=1e-5)


def test_averages_are_those_of_the_final_weights():
    adam = optimizers.Adam(0.1, use_ema=True, ema_momentum=0.75)
    optimizer = LayerAdaptation(ParameterwiseLR(adam, [["kernel", 0.5]]))
    variables, averages = new_variables("kernel", "embeddings", "bias"), None
    step = stepper(optimizer, variables)
    for i in range(4):
        step(gradients_of(variables, i))
        current = [value.astype("float64") for value in values(variables)]
        averages = averages or current
        averages = [0.75 * a + 0.25 * v for a, v in zip(averages, current, strict=True)]
        for left, right in zip(values(adam._model_variables_moving_average), averages, strict=True):
            np.testing.assert_allclose(left, right, rtol=0, atol=3e-7)


def lion_as_tiger(rate, **options):
    """What the docstring recommends to give Lion the rates of Tiger."""
    lion = optimizers.Lion(rate, beta_1=0.75, beta_2=0.75, **options)
    vectors = [["(bias|beta|gamma|gain|scale)$", 0.5]]
    return LayerAdaptation(ParameterwiseLR(lion, vectors), clip=[1e-3, None], rowwise="embeddings$")


@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_around_lion_it_gives_the_rates_of_tiger(scale):
    tiger = Tiger(0.01, beta=0.75, weight_decay=None)
    actual = trained(lion_as_tiger(0.01), new_variables(*SHAPES, scale=scale), 8)
    expected = trained(tiger, new_variables(*SHAPES, scale=scale), 8)
    for left, right in zip(actual, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=3e-7 * np.abs(right).max())


def test_with_weight_decay_lion_and_tiger_differ_by_the_size_of_the_decay():
    lion = lion_as_tiger(0.01, weight_decay=0.01)
    lion.exclude_from_weight_decay(var_names=["bias", "gamma"])
    start = values(new_variables(*SHAPES))
    actual = trained(lion, new_variables(*SHAPES), 1)
    expected = trained(Tiger(0.01, beta=0.75, weight_decay=0.01), new_variables(*SHAPES), 1)
    for before, left, right in zip(start, actual, expected, strict=True):
        difference = np.abs(left - right).max() / np.abs(right - before).max()
        # RMS(sign + 0.01 v) differs from 1 by about 0.01 mean(sign v), and |v| is about 1.
        assert difference < 0.015


@pytest.mark.parametrize("clip", [[2.0, 1.0], [-1.0, 2.0], [1.0], [float("nan"), 1.0]])
def test_bounds_that_make_no_sense_raise(clip):
    with pytest.raises(ValueError, match="0 <= low <= high"):
        LayerAdaptation(optimizers.Adam(), clip=clip)


@pytest.mark.parametrize("argument", ["exclude", "rowwise"])
def test_a_pattern_that_matches_nothing_raises(argument):
    optimizer = LayerAdaptation(optimizers.Adam(), **{argument: "nothing"})
    with pytest.raises(ValueError, match=f"matches no variable.*{argument}='nothing'"):
        optimizer.build(new_variables("kernel"))


def test_optimizers_that_cannot_stand_inside_are_refused():
    base = optimizers.MultiOptimizer(optimizers.OptimizerMap(optimizers.SGD()))
    with pytest.raises(ValueError, match="needs the learning rate"):
        LayerAdaptation(ParameterwiseLR(base, [["kernel", 0.5]]))
    with pytest.raises(ValueError, match="slots hold the weights"):
        LayerAdaptation(optimizers.Ftrl())


def test_xla_on_several_replicas_is_refused(two_replicas):
    assert "XLA cannot compile" in two_replicas("wrapper_cases.xla")
