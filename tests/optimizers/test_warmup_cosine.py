import math

import keras
import numpy as np
import pytest

from keras_ext.optimizers import WarmupCosine


def reference(peak, steps, step):
    warmup = max(steps // 10, 1)
    if step < warmup:
        return peak * step / warmup
    part = min((step - warmup) / max(steps - warmup, 1), 1.0)
    return peak * 0.5 * (1.0 + math.cos(math.pi * part))


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 25, 1000])
def test_values_are_those_of_the_formula(steps):
    schedule = WarmupCosine(0.25, steps)
    for step in sorted({0, 1, steps // 10, steps // 2, steps - 1, steps, steps + 5}):
        expected = reference(0.25, steps, step)
        np.testing.assert_allclose(schedule(step), expected, rtol=1e-5, atol=1e-8)
        later = WarmupCosine(0.25, steps, offset=step)
        np.testing.assert_allclose(later(0), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="traces are TensorFlow's")
def test_a_traced_function_follows_the_number_of_steps():
    import tensorflow as tf

    schedule = WarmupCosine(1.0, 20)
    traces = []

    @tf.function(autograph=False)
    def rate(step):
        traces.append(step)
        return schedule(step)

    assert float(rate(tf.constant(5))) == pytest.approx(reference(1.0, 20, 5))
    schedule.steps, schedule.offset = 7, 1
    assert (schedule.steps, schedule.offset) == (7, 1)
    assert float(rate(tf.constant(4))) == pytest.approx(reference(1.0, 7, 5))
    assert len(traces) == 1


@pytest.mark.parametrize("arguments", [{"peak": math.inf, "steps": 3}, {"peak": 1.0, "steps": 0}])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="Received"):
        WarmupCosine(**arguments)


def test_bad_steps_change_nothing():
    schedule = WarmupCosine(1.0, 20)
    with pytest.raises(ValueError, match="Received: steps=0"):
        schedule.steps = 0
    assert schedule.steps == 20
