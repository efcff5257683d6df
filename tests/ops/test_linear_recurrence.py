import keras
import numpy as np
import pytest
from gradients import numerical_gradient, to_numpy, value_and_gradient
from keras import ops

from keras_ext.ops import linear_recurrence
from keras_ext.ops.jacobian import value_and_jacobian
from keras_ext.ops.linear_recurrence import adjoint_recurrence


def loop(gates, inputs, state):
    """The recurrence as it is written, in NumPy."""
    states = []
    for gate, now in zip(gates, inputs, strict=True):
        product = (gate @ state[..., None])[..., 0] if gate.ndim > state.ndim else gate * state
        state = product + now
        states.append(state)
    return np.stack(states)


def case(length, full, seed=0):
    rng = np.random.default_rng(seed)
    shape = (length, 2, 3)
    gates = rng.normal(size=(*shape, 3), scale=0.5) if full else rng.uniform(-1, 1, shape)
    return [x.astype("float32") for x in (gates, rng.normal(size=shape), rng.normal(size=(2, 3)))]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 256, 300])
def test_states_are_those_of_the_loop(length, full):
    arguments = case(length, full)
    states = to_numpy(linear_recurrence(*arguments))
    np.testing.assert_allclose(states, loop(*arguments), atol=2e-6)


@pytest.mark.parametrize("full", [False, True])
def test_gradients_are_those_of_the_loop(full):
    arguments = case(19, full)
    upstream = np.random.default_rng(1).normal(size=arguments[1].shape)
    _, gradients = value_and_gradient(
        lambda *x: linear_recurrence(*x) * ops.cast(upstream, "float32"), *arguments
    )
    for place, gradient in enumerate(gradients):

        def weighted(x, place=place):
            return loop(*[x if i == place else a for i, a in enumerate(arguments)]) * upstream

        expected = numerical_gradient(weighted, arguments[place])
        np.testing.assert_allclose(gradient, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("full", [False, True])
def test_adjoint_is_the_transposed_matrix_of_the_recurrence(full):
    """<y, L h> = <L^T y, h>, L the linear map from h to x at x_0 = 0."""
    gates, inputs, initial = case(40, full)
    other = np.random.default_rng(2).normal(size=inputs.shape).astype("float32")
    states = to_numpy(linear_recurrence(gates, inputs, 0 * initial))
    adjoint = to_numpy(
        adjoint_recurrence(ops.convert_to_tensor(gates), ops.convert_to_tensor(other))
    )
    np.testing.assert_allclose(np.sum(states * other), np.sum(adjoint * inputs), rtol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="lengths are known in JAX")
@pytest.mark.parametrize("full", [False, True])
def test_a_length_that_is_unknown_when_traced(full):
    import tensorflow as tf

    arguments = case(1, full)
    specs = [tf.TensorSpec((None, *x.shape[1:])) for x in arguments[:2]]
    specs.append(tf.TensorSpec(arguments[2].shape))
    function = tf.function(linear_recurrence, input_signature=specs, autograph=False)
    for length in (1, 16, 700):
        arguments = case(length, full)
        np.testing.assert_allclose(function(*arguments), loop(*arguments), atol=5e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX has no float64")
def test_float64_stays():
    arguments = [x.astype("float64") for x in case(20, False)]
    states = to_numpy(linear_recurrence(*arguments))
    np.testing.assert_allclose(states, loop(*arguments), atol=1e-14)


@pytest.mark.parametrize(
    "shapes",
    [
        [(4, 2), (4, 2, 3), (2, 3)],
        [(4, 2, 3), (4, 2, 3), (3,)],
        [(4, 3, 3, 3), (4, 3), (3,)],
        [(5, 1, 2), (5, 3, 2), (3, 2)],
        [(5, 3, 2), (5, 1, 2), (1, 2)],
        [(5, 3, 2), (5, 3, 2), (1, 2)],
        [(5, 3, 2), (4, 3, 2), (3, 2)],
        [(5, 3, 2, 1), (5, 3, 2), (3, 2)],
        [(5,), (), ()],
    ],
    ids=str,
)
def test_shapes_that_do_not_go_together_are_refused(shapes):
    with pytest.raises(ValueError, match=r"Received: gates \("):
        linear_recurrence(*[np.ones(shape, "float32") for shape in shapes])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    """0.999^t: in bfloat16 the gates would be 1; products of 16 gates of 4 overflow float16."""
    gates = np.full((3000, 1), 0.999, "float32")
    inputs, zeros = np.ones((3000, 1)), np.zeros(1)
    states = linear_recurrence(gates, ops.cast(inputs, dtype), zeros)
    assert keras.backend.standardize_dtype(states.dtype) == dtype
    expected = (1 - 0.999**3000) / (1 - 0.999)
    np.testing.assert_allclose(float(states[-1, 0]), expected, rtol=2**-8)
    rest = ops.cast(0 * inputs[:40], dtype)
    values, (gradient,) = value_and_gradient(
        lambda gates: linear_recurrence(gates, rest, zeros), np.full((40, 1), 4, "float32")
    )
    assert not np.any(values.astype("float32")) and not np.any(gradient)


def test_jacobian_of_rows(rng):
    kernel, x = rng.normal(size=(3, 3)).astype("float32"), rng.normal(size=(5, 3)).astype("float32")
    y, jacobian = value_and_jacobian(
        lambda x: ops.tanh(ops.matmul(x, kernel)), ops.convert_to_tensor(x)
    )
    expected = (1 - np.tanh(x @ kernel) ** 2)[..., None] * kernel.T
    np.testing.assert_allclose(to_numpy(jacobian), expected, atol=1e-6)
    np.testing.assert_allclose(to_numpy(y), np.tanh(x @ kernel), atol=1e-6)


def test_jacobian_of_an_elementwise_function_is_its_diagonal(rng):
    x = ops.convert_to_tensor(rng.normal(size=(5, 3)).astype("float32"))
    _, diagonal = value_and_jacobian(ops.sin, x, elementwise=True)
    np.testing.assert_allclose(to_numpy(diagonal), np.cos(to_numpy(x)), atol=1e-6)


@pytest.mark.parametrize("elementwise", [False, True])
def test_jacobian_of_a_constant_is_zero(elementwise):
    x = ops.ones((5, 3))
    _, jacobian = value_and_jacobian(lambda x: ops.zeros((5, 3)) + 2.0, x, elementwise)
    assert not np.any(to_numpy(jacobian))
