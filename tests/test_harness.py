"""The harness sees each fault that is planted, and passes what has none."""

import harness
import keras
import numpy as np
import pytest
from harness_kinds import LENGTH, LayerRow, LossRow, MetricRow
from keras import ops

from keras_ext import layers, losses, metrics

INPUTS = np.random.default_rng(0).normal(size=(3, LENGTH, 4)).astype("float32")
MASK = np.array([[1] * LENGTH, [1, 1, 1, 0, 0, 0, 0], [0] * LENGTH], "bool")
POINTER = {"heads": 2, "head_size": 4}


class Scale(keras.layers.Layer):
    """Without a fault: a learned factor, times a constant."""

    def __init__(self, constant=1.0, **kwargs):
        super().__init__(**kwargs)
        self.constant = constant
        self.supports_masking = True

    def build(self, input_shape):
        self.factor = self.add_weight(shape=(input_shape[-1],), name="factor")

    def call(self, inputs, mask=None):
        return inputs * self.factor * self.constant

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "constant": self.constant}


def row_of(cls, **arguments):
    """A row; the class is registered as those of the package are, but only in this process."""
    keras.saving.register_keras_serializable(package="planted")(cls)
    return LayerRow(cls, arguments, {"inputs": INPUTS, "mask": MASK})


def test_a_layer_without_a_fault_passes_all_but_the_package_name():
    row = row_of(Scale, constant=2.0)
    harness.check_arguments_vary([row])
    for check in (harness.check_config, harness.check_build, harness.check_xla):
        check(row)
    harness.check_padding(row)
    for policy in harness.POLICIES:
        harness.check_output(row, policy)
    for policy in harness.TOLERANCES:
        harness.check_low_precision(row, policy)


@pytest.mark.slow
def test_whole_checks_of_each_kind_pass_on_the_package():
    scores = np.where(np.arange(LENGTH) > 2, np.float32(-1e30), INPUTS[..., :2, None])
    inputs = {"y_true": np.array([[[0, 1, 1]]] * 3), "y_pred": scores.transpose(0, 2, 1, 3)}
    mask = {"inputs": INPUTS, "mask": MASK}
    harness.check_layer(LayerRow(layers.EfficientGlobalPointer, POINTER, mask))
    harness.check_loss(LossRow(losses.GlobalPointerCrossentropy, {}, inputs))
    harness.check_metric(MetricRow(metrics.SpanF1, {"heads": 2}, inputs))


def test_a_dropped_config_argument_is_caught():
    class Dropping(Scale):
        def get_config(self):
            return keras.layers.Layer.get_config(self)

    with pytest.raises(AssertionError, match=r"Dropping: the config lacks \['constant'\]"):
        harness.check_config(row_of(Dropping))


def test_an_argument_that_the_config_changes_is_caught():
    class Doubling(Scale):
        def get_config(self):
            return {**super().get_config(), "constant": 2 * self.constant}

    message = "the config of constant is 6.0, passed was 3.0"
    with pytest.raises(AssertionError, match=message):
        harness.check_config(row_of(Doubling, constant=3.0))


def test_an_argument_that_is_never_passed_off_its_default_is_caught():
    with pytest.raises(AssertionError, match="no row passes constant other than 1.0"):
        harness.check_arguments_vary([row_of(Scale), row_of(Scale, constant=1.0)])


def test_a_config_that_build_changes_is_caught():
    class Rewriting(Scale):
        def build(self, input_shape):
            super().build(input_shape)
            self.constant = [self.constant]

    with pytest.raises(AssertionError, match="build changes the config"):
        harness.check_config(row_of(Rewriting, constant=2.0))


def test_a_lost_registered_name_is_caught():
    class Nameless(Scale):
        pass

    row = LayerRow(Nameless, {}, {"inputs": INPUTS})
    with pytest.raises(AssertionError, match="registered as Nameless, not keras_ext>Nameless"):
        harness.check_registered_name(row)


def test_an_unbuilt_sub_layer_is_caught():
    class Unbuilt(Scale):
        def build(self, input_shape):
            super().build(input_shape)
            self.dense = keras.layers.Dense(4, name="forgotten")

        def call(self, inputs, mask=None):
            return self.dense(inputs)

    with pytest.raises(AssertionError, match=r"sub-layers unbuilt: \['forgotten'\]"):
        harness.check_build(row_of(Unbuilt))


def test_a_nan_in_float16_is_caught():
    class Overflowing(Scale):
        def call(self, inputs, mask=None):
            padding = ops.cast(ops.logical_not(mask), inputs.dtype)[..., None]
            return super().call(inputs) - padding * 1e12

    row = row_of(Overflowing)
    harness.check_low_precision(row, "mixed_bfloat16")
    with pytest.raises(AssertionError, match="value under mixed_float16 is not finite"):
        harness.check_low_precision(row, "mixed_float16")


def test_a_nan_in_the_gradient_of_a_fully_masked_row_is_caught():
    class Averaging(Scale):
        def call(self, inputs, mask=None):
            # Without a token the norm is 0, where the root has no derivative.
            kept = super().call(inputs) * ops.cast(mask, inputs.dtype)[..., None]
            return inputs + ops.sqrt(ops.sum(kept**2, axis=1, keepdims=True))

    with pytest.raises(AssertionError, match="the gradient under XLA is not finite"):
        harness.check_xla(row_of(Averaging))


def test_a_sum_in_half_precision_is_caught():
    class Imprecise(Scale):
        def call(self, inputs, mask=None):
            return (inputs + 1000.0) * self.factor - 1000.0 * self.factor

    with pytest.raises(AssertionError, match="the value under mixed_float16 is off by"):
        harness.check_low_precision(row_of(Imprecise), "mixed_float16")


def test_a_wrong_output_dtype_is_caught():
    class Widening(Scale):
        def call(self, inputs, mask=None):
            return ops.cast(super().call(inputs), "float32")

    row = row_of(Widening)
    harness.check_output(row, "float32")
    message = "under mixed_float16 is float32, promised float16"
    with pytest.raises(AssertionError, match=message):
        harness.check_output(row, "mixed_float16")


def test_a_wrong_output_shape_is_caught():
    class Misstated(Scale):
        def compute_output_shape(self, input_shape):
            return (*input_shape[:-1], 5)

    with pytest.raises(AssertionError, match=r"output is \(3, 7, 4\), .* says \(3, 7, 5\)"):
        harness.check_output(row_of(Misstated), "float32")


def test_half_precision_weights_are_caught():
    class Narrow(Scale):
        def build(self, input_shape):
            self.factor = self.add_weight(shape=(4,), dtype=self.compute_dtype, name="factor")

    with pytest.raises(AssertionError, match="not all weights are float32 under mixed_float16"):
        harness.check_output(row_of(Narrow), "mixed_float16")


def test_a_branch_on_values_is_caught():
    class Branching(Scale):
        def call(self, inputs, mask=None):
            return super().call(inputs) if ops.sum(inputs) > 0 else inputs

    with pytest.raises(AssertionError, match="Branching: XLA cannot compile it"):
        harness.check_xla(row_of(Branching))


def test_a_value_that_differs_under_xla_is_caught():
    class Counting(Scale):
        calls = 0

        def call(self, inputs, mask=None):
            self.calls += 1
            return super().call(inputs) * self.calls

    with pytest.raises(AssertionError, match="the value under XLA is off by"):
        harness.check_xla(row_of(Counting))


def test_a_gradient_that_differs_under_xla_is_caught():
    class Detaching(Scale):
        calls = 0

        def call(self, inputs, mask=None):
            self.calls += 1
            outputs = super().call(inputs)
            return ops.stop_gradient(outputs) if self.calls > 1 else outputs

    with pytest.raises(AssertionError, match="the gradient under XLA is off by"):
        harness.check_xla(row_of(Detaching))


def test_a_retrace_is_caught():
    class Thawing(Scale):
        def call(self, inputs, mask=None):
            # The weights that train are another list at each call.
            self.factor.trainable = not self.factor.trainable
            return super().call(inputs)

    with pytest.raises(AssertionError, match="the second call .* traces again"):
        harness.check_xla(row_of(Thawing))


def test_padding_that_leaks_is_caught():
    class Leaking(Scale):
        def call(self, inputs, mask=None):
            return super().call(inputs) + ops.mean(inputs, axis=1, keepdims=True)

    with pytest.raises(AssertionError, match="at padded positions changes the others by"):
        harness.check_padding(row_of(Leaking))
