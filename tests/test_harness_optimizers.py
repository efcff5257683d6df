"""The checks of optimizers see each fault that is planted, and pass what has none."""

import harness
import keras
import numpy as np
import pytest
from harness_kinds import OptimizerRow
from harness_optimizers import check_compiled, check_training
from reload_saved import outputs_of

RNG = np.random.default_rng(0)
TRAINING = {
    "train_x": RNG.integers(0, 6, (6, 8, 3)).astype("int32"),
    "train_y": RNG.normal(size=(6, 8, 3)).astype("float32"),
}


class Momentum(keras.optimizers.SGD):
    """Without a fault: gradient descent with momentum, and an argument of its own."""

    def __init__(self, learning_rate=0.125, factor=1.0, name=None):
        super().__init__(learning_rate, momentum=0.5, name=name)
        self.factor = factor

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, self.factor * learning_rate)

    def get_config(self):
        config = super().get_config()
        config = {name: config[name] for name in ("learning_rate", "name")}
        return {**config, "factor": self.factor}


def row_of(cls, **arguments):
    """A row; the class is registered as those of the package are, but only in this process."""
    keras.saving.register_keras_serializable(package="planted")(cls)
    return OptimizerRow(cls, arguments, TRAINING)


def reloaded_goes_on(row, path):
    """Whether a model that was loaded goes on as the one that was saved."""
    expected = harness.save(row, "float32", path)
    inputs = dict(np.load(path.with_suffix(".inputs.npz")))
    outputs = outputs_of(keras.saving.load_model(path), inputs)
    return all(np.array_equal(outputs[name], expected[name]) for name in expected)


def test_an_optimizer_without_a_fault_passes(tmp_path):
    row = row_of(Momentum, factor=0.5)
    harness.check_config(row)
    check_compiled(row)
    check_training(row, "mixed_bfloat16")
    assert reloaded_goes_on(row, tmp_path / "model.keras")


def test_a_dropped_config_argument_is_caught():
    class Dropping(Momentum):
        def get_config(self):
            config = super().get_config()
            del config["factor"]
            return config

    with pytest.raises(AssertionError, match=r"Dropping: the config lacks \['factor'\]"):
        harness.check_config(row_of(Dropping))


def test_slots_that_are_not_loaded_are_caught(tmp_path):
    class Forgetful(Momentum):
        def load_own_variables(self, store):
            pass

    assert not reloaded_goes_on(row_of(Forgetful), tmp_path / "model.keras")


def test_what_is_counted_in_python_is_caught():
    class Counting(Momentum):
        steps = 0

        def update_step(self, gradient, variable, learning_rate):
            self.steps += 1
            super().update_step(gradient, variable, learning_rate / self.steps)

    with pytest.raises(AssertionError, match="under XLA is off by"):
        check_compiled(row_of(Counting))


def test_weights_that_are_not_finite_are_caught():
    class Exploding(Momentum):
        def update_step(self, gradient, variable, learning_rate):
            super().update_step(gradient, variable, learning_rate)
            self.assign(variable, variable + np.inf)

    with pytest.raises(AssertionError, match="not finite under mixed_bfloat16"):
        check_training(row_of(Exploding), "mixed_bfloat16")


def test_weights_that_stand_still_are_caught():
    with pytest.raises(AssertionError, match="not all weights move"):
        check_training(row_of(Momentum, factor=0.0), "float32")


def test_an_update_without_regard_to_the_rate_is_caught():
    class Stubborn(Momentum):
        def update_step(self, gradient, variable, learning_rate):
            super().update_step(gradient, variable, 0.125)

    with pytest.raises(AssertionError, match="weights move at a learning rate of 0"):
        check_training(row_of(Stubborn), "float32")


def test_a_rate_that_cannot_be_set_is_caught():
    class Fixed(Momentum):
        learning_rate = property(lambda self: 0.5, lambda self, rate: None)

    with pytest.raises(AssertionError, match=r"the rate is \[0.5, 0.5\]"):
        check_training(row_of(Fixed), "float32")
