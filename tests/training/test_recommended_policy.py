import itertools

import keras
import pytest

from keras_ext.training import recommended_policy
from keras_ext.training.recommended_policy import median_ratio, policy_for


@pytest.mark.parametrize(
    ("devices", "speedups", "expected"),
    [
        (["cpu:0", "gpu:0"], {"float16": 2.0, "bfloat16": 0.1}, "mixed_float16"),
        (["GPU:0"], {"float16": 1.0}, "float32"),
        (["cpu:0", "cpu:1"], {"bfloat16": 3.0}, "mixed_bfloat16"),
        (["cpu:0"], {"bfloat16": 0.9}, "float32"),
        (["cpu:0"], {"bfloat16": 1.1}, "float32"),  # within the noise: not worth the precision
        (["tpu:0", "tpu:1"], {}, "mixed_bfloat16"),  # known by name, nothing is measured
    ],
)
def test_the_policy_follows_the_device_and_the_measured_products(devices, speedups, expected):
    assert policy_for(devices, lambda half, size: speedups[half]) == expected


def test_float16_is_never_tried_on_a_cpu():
    tried = []
    policy_for(["cpu:0"], lambda half, size: tried.append(half) or 9.0)
    assert tried == ["bfloat16"]


class Machine:
    """A clock, and functions that move it on."""

    def __init__(self, slowness):
        self.now = 0.0
        self.slowness = iter(slowness)
        self.order = []

    def __call__(self):
        return self.now

    def function(self, name, seconds):
        def run():
            self.order.append(name)
            self.now += seconds * next(self.slowness)

        return run


def test_a_machine_that_slows_down_and_hiccups_does_not_move_the_ratio():
    # Ever slower, and in one round ten times slower for the second function alone.
    slowness = [1.0, 1.0, *(1.5 ** (i // 2) for i in range(18))]
    slowness[7] *= 10.0
    machine = Machine(slowness)
    sides = machine.function("a", 6e-5), machine.function("b", 2e-5)
    assert median_ratio(*sides, clock=machine) == pytest.approx(3.0)
    assert machine.order == ["a", "b"] * 10


def test_a_very_slow_machine_is_measured_once():
    machine = Machine(itertools.repeat(1.0))
    sides = machine.function("a", 4.0), machine.function("b", 5.0)
    assert median_ratio(*sides, clock=machine) == pytest.approx(0.8)
    assert machine.order == ["a", "b"] * 2


def test_nothing_is_set_and_the_name_is_a_policy_of_this_machine():
    before = keras.config.dtype_policy()
    policy = recommended_policy()
    assert keras.config.dtype_policy() is before
    assert policy in {"float32", "mixed_float16", "mixed_bfloat16"}
    if keras.distribution.list_devices()[0].startswith("cpu"):
        assert policy != "mixed_float16"
    assert keras.dtype_policies.get(policy).variable_dtype == "float32"
