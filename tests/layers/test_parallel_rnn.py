import keras
import numpy as np
import pytest
from gradients import differentiated, relative_error, to_numpy
from harness_backend import compiled
from keras import ops

from keras_ext.keras_internals import layers_inside
from keras_ext.layers import ParallelRNN
from keras_ext.layers.cell_steps import CellSteps
from keras_ext.layers.parallel_sweeps import METHODS, parallel_states, sequential_states

LENGTH = 19
CELLS = {
    "simple": keras.layers.SimpleRNNCell,
    "gru": keras.layers.GRUCell,
    "lstm": keras.layers.LSTMCell,
}


@keras.saving.register_keras_serializable(package="tests_parallel_rnn")
class Elementwise(keras.layers.Layer):
    """Each unit reads its own state; the output is not the state, and reads the state before."""

    elementwise = True

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.state_size = self.output_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[-1], self.state_size), name="kernel")
        self.factor = self.add_weight((self.state_size,), initializer="ones", name="factor")

    def call(self, inputs, states):
        state = ops.tanh(ops.matmul(inputs, self.kernel) + self.factor * states[0])
        return state * states[0] + 1.0, [state]


class TwoDense(keras.layers.Layer):
    """A cell made of layers: tanh(kernel(u_t) + recurrent(x_{t-1}))."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.state_size = self.output_size = units
        self.kernel = keras.layers.Dense(units, dtype=self.dtype_policy)
        self.recurrent = keras.layers.Dense(units, use_bias=False, dtype=self.dtype_policy)

    def build(self, input_shape):
        self.kernel.build(input_shape)
        self.recurrent.build((None, self.state_size))

    def call(self, inputs, states):
        state = ops.tanh(self.kernel(inputs) + self.recurrent(states[0]))
        return state, [state]


def mask_of(rows):
    """Holes, masked first steps, and a sequence that is masked altogether."""
    mask = np.random.default_rng(7).random((rows, LENGTH)) > 0.3
    mask[1, :4], mask[2] = False, False
    return mask


def mask_for_outputs():
    """None in JAX, where Keras repeats the first state in masked steps, not the output."""
    return mask_of(3) if keras.backend.backend() == "tensorflow" else None


def make(cell, scale=0.6, width=4, **arguments):
    """A parallel layer and the loop around the same cell, with random weights."""
    cell = CELLS[cell](width) if isinstance(cell, str) else cell
    layer = ParallelRNN(cell, return_state=True, **arguments)
    layer.build((None, None, 3))
    rng = np.random.default_rng(0)
    for weight in cell.trainable_variables:
        weight.assign(rng.normal(size=weight.shape, scale=scale))
    backwards = arguments.get("go_backwards", False)
    return layer, keras.layers.RNN(cell, True, True, backwards)


def data(layer, rows=3, seed=1):
    """Inputs and initial states."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, LENGTH, 3)).astype("float32")
    return x, [rng.normal(size=(rows, n)).astype("float32") for n in layer.state_size]


def results(layer, x, states, mask=None, use_xla=False):
    """Outputs and last states in a row, and their gradients: of inputs, initial states, weights."""
    weights = layer.cell.trainable_variables
    # What comes before the first step, Keras repeats from the state in JAX, not in TensorFlow.
    seen = np.ones(x.shape[:2]) if mask is None else np.cumsum(mask, axis=1) > 0
    upstream = np.random.default_rng(3).normal(size=(*x.shape[:2], 1)) * seen[..., None]

    def function(x, *values):
        states = list(values[: len(layer.state_size)])
        with keras.StatelessScope(zip(weights, values[len(states) :], strict=True)):
            outputs, *last = layer(x, initial_state=states, mask=mask)
        weighted = outputs * ops.cast(upstream, outputs.dtype)
        return ops.concatenate([ops.reshape(y, (-1,)) for y in (weighted, *last)])

    values = [to_numpy(weight.value) for weight in weights]
    return differentiated(function, use_xla)(x, *states, *values)


def check(layer, loop, x, states, mask=None, limit=1e-5, **arguments):
    value, gradients = results(layer, x, states, mask, **arguments)
    expected, expected_gradients = results(loop, x, states, mask)
    assert relative_error(value, expected) < limit
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        assert relative_error(gradient, other) < limit


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_values_and_gradients_are_those_of_the_loop(cell, masked):
    layer, loop = make(cell)
    # A fallback would warn, and warnings are errors.
    check(layer, loop, *data(layer), mask_of(3) if masked else None)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_comes_to_the_same_and_has_the_whole_gradient(method):
    layer, loop = make("gru", 0.3, method=method, tolerance=1e-7)
    check(layer, loop, *data(layer), mask_of(3))


@pytest.mark.slow
def test_compiled_it_is_the_same_also_where_it_falls_back():
    for most in (None, 2):
        layer, loop = make("simple", 1.0, max_sweeps=most)
        check(layer, loop, *data(layer), mask_of(3), use_xla=True)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_cell_of_the_user_that_is_elementwise(backwards):
    layer, loop = make(Elementwise(4), go_backwards=backwards)
    check(layer, loop, *data(layer), mask_for_outputs())


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras' loop fails in JAX")
def test_stacked_cells():
    stack = keras.layers.StackedRNNCells([keras.layers.GRUCell(3), keras.layers.LSTMCell(2)])
    layer, loop = make(stack)
    x, _ = data(make("gru")[0])
    for part, other in zip(keras.tree.flatten(layer(x)), keras.tree.flatten(loop(x)), strict=True):
        np.testing.assert_allclose(part, other, atol=1e-6)
    assert layer.count_params() == loop.count_params()


def solution(layer, method, sweeps, tolerance=1e-30):
    x, states = data(layer)
    steps = CellSteps(layer.cell)
    inputs = ops.convert_to_tensor(np.swapaxes(x, 0, 1))
    initial = steps.join(list(map(ops.convert_to_tensor, states)))
    found = compiled(lambda x: parallel_states(steps, x, None, initial, method, tolerance, sweeps))
    return found(inputs), to_numpy(sequential_states(steps, inputs, None, initial))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_after_k_sweeps_the_first_k_states_are_right(method):
    layer, _ = make("simple", 0.7)
    for k in (1, 3, 6):
        (states, converged, count), expected = solution(layer, method, k)
        assert int(count) == k and not bool(converged)
        np.testing.assert_allclose(to_numpy(states)[:k], expected[:k], atol=1e-5)
        assert np.abs(to_numpy(states)[k:] - expected[k:]).max() > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("method", ["newton", "diagonal", "picard"])
def test_as_many_sweeps_as_steps_suffice_and_one_to_see_it(method):
    layer, _ = make("simple", 1.5)
    (states, converged, count), expected = solution(layer, method, LENGTH + 1, 1e-4)
    assert bool(converged) and int(count) <= LENGTH + 1
    np.testing.assert_allclose(to_numpy(states), expected, atol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX traces the loop")
def test_without_a_gradient_the_cell_is_called_once_a_sweep_and_once_for_the_result(monkeypatch):
    cell = keras.layers.GRUCell(4)
    layer = ParallelRNN(cell, "picard")
    x = np.random.default_rng(0).normal(size=(3, LENGTH, 3)).astype("float32")
    layer.build(x.shape)
    calls, call = [], cell.call
    monkeypatch.setattr(cell, "call", lambda *x, **y: calls.append(0) or call(*x, **y))
    layer(x)
    assert len(calls) == int(layer.sweeps) + 1


def test_convergence_in_the_last_sweep_counts():
    layer, _ = make(Elementwise(4))
    x, _ = data(layer)
    layer(x)
    count = int(layer.sweeps)
    for most, fallbacks in ((count, 0), (count - 1, 1)):
        again = ParallelRNN(layer.cell, max_sweeps=most)
        again.build(x.shape)
        if fallbacks:
            with pytest.warns(UserWarning, match=f"{most} sweeps"):
                again(x)
        else:
            again(x)
        assert int(again.fallbacks) == fallbacks


def test_without_convergence_it_is_the_loop_and_warns():
    layer, loop = make(Elementwise(4), 3.0, max_sweeps=1)
    x, states = data(layer)
    mask = mask_for_outputs()
    with pytest.warns(UserWarning, match="did not converge"):
        outputs = layer(x, initial_state=states, mask=mask)[0]
    expected = loop(x, initial_state=states, mask=mask)[0]
    np.testing.assert_allclose(to_numpy(outputs), to_numpy(expected), atol=1e-6)


def test_nan_is_not_taken_for_converged_and_stays_where_the_loop_has_it():
    layer, loop = make(Elementwise(4))
    x, states = data(layer)
    x[1, 5] = np.nan
    with pytest.warns(UserWarning, match="gave NaN"):
        outputs = to_numpy(layer(x, initial_state=states)[0])
    assert int(layer.fallbacks) == 1 and int(layer.sweeps) == 1
    np.testing.assert_allclose(outputs, to_numpy(loop(x, initial_state=states)[0]), atol=1e-6)
    assert np.isnan(outputs[1, 5:]).all() and np.isfinite(outputs[[0, 2]]).all()
    with pytest.warns(UserWarning, match="gave NaN"):
        layer(np.full_like(x, np.nan))  # no state is left that could still change
    assert int(layer.fallbacks) == 2
    mask = np.ones(x.shape[:2], bool)
    mask[1, 5] = False
    assert np.isfinite(to_numpy(layer(x, initial_state=states, mask=mask)[0])).all()


def test_state_is_kept_between_calls_as_in_keras():
    cell = Elementwise(4)
    layers = [kind(cell, stateful=True) for kind in (ParallelRNN, keras.layers.RNN)]
    x = np.random.default_rng(0).normal(size=(2, 8, 3)).astype("float32")
    for layer in layers:
        layer.build(x.shape)
    for _ in range(2):
        outputs, expected = layers[0](x), layers[1](x)
        np.testing.assert_allclose(to_numpy(outputs)[:, -1], to_numpy(expected), atol=1e-6)


@pytest.mark.slow
def test_trains_as_the_loop_does_and_counts_what_fell_back():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, LENGTH, 3)), rng.normal(size=(6, LENGTH, 4))
    trained = []
    for parallel in (True, False):
        keras.utils.set_random_seed(0)
        cell = keras.layers.GRUCell(4)
        layer = (
            ParallelRNN(cell, max_sweeps=3)
            if parallel
            else keras.layers.RNN(cell, return_sequences=True)
        )
        model = keras.Sequential([keras.Input((None, 3)), layer])
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=True)
        model.fit(x, y, batch_size=3, epochs=2, verbose=0, shuffle=False)
        trained.append([to_numpy(w) for w in cell.trainable_variables])
        if parallel:
            assert int(layer.fallbacks) == 4 and int(layer.sweeps) == 3
            short = model.predict(x[:, :5], verbose=0)
            np.testing.assert_allclose(short, model.predict(x, verbose=0)[:, :5], atol=1e-5)
    for weight, expected in zip(*trained, strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-5)


HALF_CELLS = {
    "gru": lambda dtype: keras.layers.GRUCell(4, dtype=dtype),
    "sublayers": lambda dtype: TwoDense(4, dtype=dtype),
    "nested": lambda dtype: keras.layers.StackedRNNCells(
        [
            keras.layers.StackedRNNCells([TwoDense(4, dtype=dtype)], dtype=dtype),
            keras.layers.SimpleRNNCell(2, dtype=dtype),
        ],
        dtype=dtype,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
@pytest.mark.parametrize("name", HALF_CELLS)
def test_a_cell_of_half_precision_computes_in_float32(name, policy):
    layer, _ = make(HALF_CELLS[name]("float32"))
    half = ParallelRNN(HALF_CELLS[name](policy), dtype=policy)
    half.build((None, None, 3))
    for part in [half.cell, *layers_inside(half.cell)]:
        assert part.compute_dtype == "float32"
    half.cell.set_weights(layer.cell.get_weights())
    x = np.random.default_rng(1).normal(size=(3, LENGTH, 3))
    x = np.asarray(ops.cast(ops.cast(x, half.compute_dtype), "float32"))
    outputs = half(x)
    assert keras.backend.standardize_dtype(outputs.dtype) == half.compute_dtype
    assert int(half.fallbacks) == 0
    expected = ops.cast(layer(x)[0], half.compute_dtype)
    eps = 2**-7 if "bfloat16" in policy else 2**-10
    np.testing.assert_allclose(
        *(np.asarray(ops.cast(y, "float32")) for y in (outputs, expected)), atol=eps
    )


@pytest.mark.parametrize("method", ["newton", "picard"])
def test_sweeps_read_weights_that_half_precision_around_does_not_round(method):
    layer, _ = make("gru")
    states = []
    for dtype in ("float32", "mixed_bfloat16"):
        again = ParallelRNN(layer.cell, method, 1e-6, dtype=dtype)
        again.build((None, None, 3))
        found = []
        again._masked = lambda outputs, mask, found=found: found.append(outputs) or outputs
        again(ops.cast(ops.cast(data(layer)[0], "bfloat16"), "float32"))
        states.append(to_numpy(found[0]))
    np.testing.assert_allclose(*states, atol=1e-6)


@pytest.mark.parametrize(
    ("cell", "arguments", "message"),
    [
        (lambda: keras.layers.Dense(3), {}, "Expected a cell"),
        (lambda: "gru", {}, "Expected a cell"),
        (lambda: keras.layers.GRUCell(3), {"method": "secant"}, "Received: method='secant'"),
        (lambda: keras.layers.GRUCell(3), {"tolerance": 0.0}, "Received: tolerance=0.0"),
        (lambda: keras.layers.GRUCell(3), {"tolerance": float("nan")}, "tolerance=nan"),
        (lambda: keras.layers.GRUCell(3), {"tolerance": "a"}, "Received: tolerance='a'"),
        (lambda: keras.layers.GRUCell(3), {"method": ["newton"]}, "Received: method="),
        (lambda: keras.layers.GRUCell(3), {"max_sweeps": 0}, "Received: max_sweeps=0"),
        (lambda: keras.layers.GRUCell(3), {"max_sweeps": 2.5}, "Received: max_sweeps=2.5"),
        (lambda: keras.layers.GRUCell(3), {"unroll": True}, "Received: unroll=True"),
        (lambda: keras.layers.GRUCell(3, dropout=0.1), {}, "dropout=0.1"),
        (lambda: [keras.layers.GRUCell(3, recurrent_dropout=0.1)], {}, "recurrent_dropout=0.1"),
        (
            lambda: [keras.layers.StackedRNNCells([keras.layers.GRUCell(3, dropout=0.1)])],
            {},
            "dropout=0.1",
        ),
    ],
)
def test_wrong_arguments(cell, arguments, message):
    with pytest.raises(ValueError, match=message):
        ParallelRNN(cell(), **arguments)


def test_two_states_cannot_be_elementwise():
    cell = Elementwise(3)
    cell.state_size = [3, 3]
    with pytest.raises(ValueError, match="Expected one state"):
        ParallelRNN(cell)


def test_weights_are_those_of_the_loop(rng):
    """They are set from it and saved for it, also where the counters have counted."""
    x = rng.normal(size=(2, LENGTH, 3)).astype("float32")
    loop = keras.layers.RNN(keras.layers.GRUCell(4), return_sequences=True)
    layer = ParallelRNN(keras.layers.GRUCell(4))
    layer(x), loop(x)
    layer.set_weights(loop.get_weights())
    np.testing.assert_allclose(to_numpy(layer(x)), to_numpy(loop(x)), atol=1e-5)
    assert len(layer.weights) == len(loop.weights)
    assert len(layer.variables) == len(loop.variables) + 2
