import keras
import numpy as np
import pytest
from keras import optimizers
from keras.ops import convert_to_numpy

from keras_ext.optimizers import GradientAccumulation, LayerAdaptation, Lookahead, Tiger
from tests.optimizers.steps import stepper, values

START = np.array([1.0, -2.0, 4.0], "float32")


def weight(value=START):
    return keras.Variable(value, name="kernel")


def gradient(step):
    """Exact in float32, as are all their sums here."""
    return np.array([step % 3 - 1, 1, step % 2], "float32") / 4


def reference(steps, period, size, rate=0.5):
    """The two loops of the paper, around plain gradient descent."""
    slow = fast = START.astype("float64")
    for step in range(steps):
        fast = fast - rate * gradient(step)
        if (step + 1) % period == 0:
            slow = slow + size * (fast - slow)
            fast = slow
    return fast


@pytest.mark.parametrize(("period", "size"), [(1, 0.5), (3, 0.5), (5, 0.25), (2, 1.0)])
@pytest.mark.parametrize("xla", [False, True])
def test_values_are_those_of_the_two_loops(period, size, xla):
    variable = weight()
    step = stepper(Lookahead(optimizers.SGD(0.5), period, size), [variable], jit_compile=xla)
    for i in range(7):
        step([gradient(i)])
        expected = reference(i + 1, period, size)
        np.testing.assert_allclose(convert_to_numpy(variable), expected, rtol=0, atol=1e-6)


def test_weights_that_are_loaded_after_build_are_where_it_starts():
    variable = weight(np.zeros(3, "float32"))
    step = stepper(Lookahead(optimizers.SGD(0.5), sync_period=1), [variable])
    variable.assign(START)
    step([np.zeros(3, "float32")])
    np.testing.assert_array_equal(convert_to_numpy(variable), START)


def test_an_inner_optimizer_that_has_trained_before_does_not_start_from_zero():
    variable, sgd = weight(), optimizers.SGD(0.5)
    step = stepper(sgd, [variable])
    for i in range(3):
        step([gradient(i)])
    trained = convert_to_numpy(variable)
    step = stepper(Lookahead(sgd, sync_period=2), [variable])
    step([np.zeros(3, "float32")])  # the fourth update: slow and fast weights meet
    np.testing.assert_array_equal(convert_to_numpy(variable), trained)


@pytest.mark.parametrize("kind", ["tiger", "accumulation"])
def test_micro_steps_are_no_updates(kind):
    """Two updates of three micro-steps each: one synchronisation, at the end of the second."""
    variable = weight()
    if kind == "tiger":
        tiger = Tiger(0.125, 0.0, None, 3, scale_parameter=False)
        optimizer = Lookahead(tiger, sync_period=2)
    else:
        optimizer = GradientAccumulation(Lookahead(optimizers.SGD(0.125), sync_period=2), 3)
    step, seen = stepper(optimizer, [variable]), []
    for _ in range(6):
        step([np.ones(3, "float32")])
        seen.append(float(convert_to_numpy(variable)[0]))
    assert seen == [1.0, 1.0, 0.875, 0.875, 0.875, 1.0 - 0.5 * 0.25]


def test_weights_that_shrink_within_a_window_are_not_synchronised():
    variable = weight()
    tiger = Tiger(0.125, gradient_accumulation_steps=2, nonfinite="reference", shrink_ratio=0.5)
    stepper(Lookahead(tiger, sync_period=1), [variable])([np.full(3, np.nan, "float32")])
    np.testing.assert_array_equal(convert_to_numpy(variable), 0.5 * START)


def test_averages_are_those_of_the_final_weights():
    sgd = optimizers.SGD(0.5, use_ema=True, ema_momentum=0.75)
    variable, average = weight(), None
    step = stepper(Lookahead(LayerAdaptation(sgd), sync_period=2), [variable])
    for i in range(5):
        step([gradient(i)])
        value = convert_to_numpy(variable).astype("float64")
        average = value if average is None else 0.75 * average + 0.25 * value
        (actual,) = values(sgd._model_variables_moving_average)
        np.testing.assert_allclose(actual, average, rtol=0, atol=1e-6)


def test_two_replicas_do_what_one_does(two_replicas):
    replicas, single = two_replicas("wrapper_cases.lookahead")
    assert replicas[0] == replicas[1] == single


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sync_period": 0}, "sync_period to be an int of at least 1"),
        ({"sync_period": 2.0}, "sync_period to be an int of at least 1"),
        ({"slow_step_size": 0.0}, r"slow_step_size in \(0, 1\]"),
        ({"slow_step_size": 1.5}, r"slow_step_size in \(0, 1\]"),
        ({"slow_step_size": float("nan")}, r"slow_step_size in \(0, 1\]"),
    ],
)
def test_arguments_out_of_range_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        Lookahead(optimizers.SGD(), **arguments)


def test_an_optimizer_whose_micro_steps_look_like_updates_is_refused():
    with pytest.raises(ValueError, match="count_micro_steps"):
        Lookahead(Tiger(gradient_accumulation_steps=3, count_micro_steps=True))
