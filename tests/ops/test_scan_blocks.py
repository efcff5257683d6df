import keras
import numpy as np
import pytest
from gradients import value_and_gradient
from keras import ops

from keras_ext.ops.scan_blocks import scan_blocks

RNG = np.random.default_rng(0)
BLOCKS, FACTOR = RNG.normal(size=(5, 3, 2)).astype("float32"), np.float32([0.5, -1.5])
NUMBERS = np.arange(5, dtype="int32")
SPECS = (keras.KerasTensor((3, 2)), keras.KerasTensor((3,)))


def step(state, block, factor):
    """A state of floats and integers; what is given depends on all of them."""
    (total, count), (x, number) = state, block
    output = ops.sin(total) * x + ops.cast(count, x.dtype), ops.sum(x * total * factor, -1)
    return (0.9 * total + ops.tanh(x * factor), count + number), output


def scanned(blocks, factor):
    start = (np.zeros((3, 2), "float32"), np.int32(0))
    first, second = scan_blocks(step, start, (blocks, NUMBERS), factor, SPECS)
    return ops.square(first) * ops.expand_dims(second, -1)


def one_by_one(blocks, factor):
    state, outputs = (ops.zeros((3, 2)), ops.convert_to_tensor(np.int32(0))), []
    for i in range(5):
        state, (first, second) = step(state, (blocks[i], NUMBERS[i]), factor)
        outputs.append(ops.square(first) * ops.expand_dims(second, -1))
    return ops.stack(outputs)


@pytest.mark.parametrize("compiled", [False, True])
def test_values_and_gradients_are_those_of_the_steps_one_by_one(compiled):
    output, gradients = value_and_gradient(scanned, BLOCKS, FACTOR, compiled=compiled)
    expected, others = value_and_gradient(one_by_one, BLOCKS, FACTOR)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)
    for found, other in zip(gradients, others, strict=True):
        np.testing.assert_allclose(found, other, rtol=1e-4, atol=1e-5)


def test_what_a_step_needs_for_itself_is_not_kept():
    """The gradient computes every step again: in all, each is computed three times."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("JAX says at the time of tracing what it keeps, not how often it computes")
    calls = []

    def counted(state, block, factor):
        calls.append(None)
        return step(state, block, factor)

    def function(blocks):
        start = (np.zeros((3, 2), "float32"), np.int32(0))
        return scan_blocks(counted, start, (blocks, NUMBERS), FACTOR, SPECS)[0]

    function(BLOCKS)
    assert len(calls) == 5
    value_and_gradient(function, BLOCKS)
    assert len(calls) == 5 + 15
