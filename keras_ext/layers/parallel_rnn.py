import inspect
import warnings

import keras
from keras import ops, tree

from keras_ext.keras_internals import layers_inside
from keras_ext.layers.cell_steps import CellSteps
from keras_ext.layers.parallel_sweeps import (
    METHODS,
    parallel_states,
    sequential_states,
    with_gradient,
)
from keras_ext.layers.replica_state import replica_state
from keras_ext.ops.linear_recurrence import linear_recurrence
from keras_ext.ops.settings import number, one_of, whole

TOLERANCES = {"float32": 1e-5, "float64": 1e-8}


@keras.saving.register_keras_serializable(package="keras_ext")
class ParallelRNN(keras.layers.RNN):
    """A recurrent layer that computes all steps at once, of any cell, by sweeps over the sequence.

        x_t = f(u_t, x_{t-1}),  t = 1 ... n

    Given a guess of all states, a sweep solves the linear recurrence

        x_t = G_t x_{t-1} + h_t,  h_t = f(u_t, x'_{t-1}) - G_t x'_{t-1},  x' the guess

    for the next, by `ops.linear_recurrence`, until no state changes by more than the tolerance. The
    method says what G_t is:

        "newton"    the derivative of f at x'_{t-1}: few sweeps, of O(d^3) a step (O(d) of a cell
                    that is elementwise)
        "diagonal"  its diagonal: cheaper to solve with, more sweeps
        "picard"    0: no recurrence, as many sweeps as the state remembers steps
        "fixed"     the derivative at a state and an input of zeros. It needs no derivatives, but
                    converges for strongly contractive cells only, and explodes for others

    After k sweeps the first k states are right whatever the method. Where the sweeps do not
    converge, or give NaN, the states are computed one after the other: right, and slow. A call
    that is not compiled warns of it. `fit`, `predict` and all that is compiled cannot warn (XLA on
    TensorFlow has no way back into Python): look at `fallbacks`, which counts there, too. The
    gradient is exact for the states that were found, by the recurrence of the adjoint at them, with
    the whole derivative whatever the method; no sweep is stored for it.

    It is a `keras.layers.RNN`: the cell, the weights, masks, `stateful` and what is returned are
    the same. A masked step keeps the state and repeats the last output, which is 0 before the first
    step, as in Keras on TensorFlow (on JAX, Keras repeats the first state instead). Two variables
    tell how it went: `sweeps`, of the last call, and `fallbacks`, how many calls needed the loop;
    of several replicas, those of the first. They are no weights, and are not saved: `set_weights`
    takes those of a `keras.layers.RNN`.

    The states are in float32 or float64 whatever the policy: a cell of a half-precision policy, and
    every layer in it, is given the policy "float32". A cell whose unit i reads no state but its own can say so by an
    attribute `elementwise = True`; if that is not true, the gradient is wrong.

    Args:
        cell: a cell, `keras.layers.SimpleRNNCell`, `GRUCell`, `LSTMCell`, one of yours, or a list of
            cells. Its call must treat each row by itself; what it does to variables is not kept.
        method: "newton", "diagonal", "picard" or "fixed".
        tolerance: float, the largest change of a state that ends the sweeps, relative to the state
            where that is above 1. Newton squares the error once more, what is left of the other
            methods is larger. None: 1e-5, in float64 1e-8.
        max_sweeps: int, sweeps before the loop takes over. None: 50.
        return_sequences: bool, whether all outputs are returned, or the last.
        return_state: bool, whether the last states are returned, too.
        go_backwards: bool, whether the sequence is read from its end.

    Call arguments:
        inputs: (b, n, k).
        mask: (b, n) bool, true = token.
        initial_state: list of the states of the cell, (b, d) each. None: those of the cell.

    Returns:
        (b, n, d), or (b, d); with `return_state` also the states, (b, d) each.

    Raises:
        ValueError: for what is not a cell, a cell with dropout (its mask is that of one step), a
            cell of several states that calls itself elementwise, an unknown method, a tolerance
            that is no number above 0, `max_sweeps` that is no int of at least 1, or unrolling.

    Example:

    >>> import numpy as np
    >>> x, cell = np.ones((2, 30, 3), "float32"), keras.layers.GRUCell(4)
    >>> layer, loop = ParallelRNN(cell), keras.layers.RNN(cell, return_sequences=True)
    >>> np.allclose(layer(x), loop(x), atol=1e-6)
    True
    >>> 1 < int(layer.sweeps) < 10, int(layer.fallbacks)
    (True, 0)

    Source: Yi Heng Lim, Qi Zhu, Joshua Selfridge and Muhammad Firmansyah Kasim, Parallelizing
    non-linear sequential models over the sequence length, 2023, https://arxiv.org/abs/2309.12252;
    Jianlin Su, 2023, https://kexue.fm/archives/9783; the diagonal method: Xavier Gonzalez, Andrew
    Warrington, Jimmy T. H. Smith and Scott W. Linderman, Towards scalable and stable
    parallelization of nonlinear RNNs, 2024, https://arxiv.org/abs/2407.19115
    """

    def __init__(
        self,
        cell,
        method="newton",
        tolerance=None,
        max_sweeps=None,
        return_sequences=True,
        return_state=False,
        go_backwards=False,
        **kwargs,
    ):
        if isinstance(cell, (list, tuple)):
            cell = keras.layers.StackedRNNCells(cell)
        _check_cell(cell)
        if tolerance is not None and number("tolerance", tolerance) <= 0:
            raise ValueError(f"Expected a tolerance above 0. Received: {tolerance=}")
        if kwargs.pop("unroll", False):
            raise ValueError("There is no loop to unroll. Received: unroll=True")
        super().__init__(cell, return_sequences, return_state, go_backwards, **kwargs)
        for part in [cell, *layers_inside(cell)]:
            if part.compute_dtype not in TOLERANCES:
                part.dtype_policy = keras.DTypePolicy("float32")
        self.method = one_of("method", method, METHODS)
        self.tolerance = None if tolerance is None else float(tolerance)
        self.max_sweeps = None if max_sweeps is None else whole("max_sweeps", max_sweeps)

    def build(self, sequences_shape, initial_state_shape=None):
        super().build(sequences_shape, initial_state_shape)
        self.sweeps = replica_state(self, (), "zeros", "sweeps")
        self.fallbacks = replica_state(self, (), "zeros", "fallbacks")

    @property
    def weights(self):
        """Those of a `keras.layers.RNN` of this cell: what counts sweeps is none of them."""
        counters = self._counters()
        return [weight for weight in super().weights if id(weight) not in counters]

    def _counters(self):
        return {id(getattr(self, name, None)) for name in ("sweeps", "fallbacks")}

    def save_own_variables(self, store):
        """Nothing: the cell saves its weights, and counters begin anew."""

    def load_own_variables(self, store):
        """Nothing."""

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """What `keras.layers.RNN` calls for the loop over the steps."""
        takes_training = "training" in inspect.signature(self.cell.call).parameters
        steps = CellSteps(self.cell, **({"training": training} if takes_training else {}))
        inputs = ops.swapaxes(ops.cast(sequences, self.cell.compute_dtype), 0, 1)
        if mask is not None:
            mask = ops.swapaxes(ops.cast(mask, "bool"), 0, 1)[..., None]
        if self.go_backwards:
            inputs, mask = (None if x is None else ops.flip(x, 0) for x in (inputs, mask))
        if mask is not None:
            inputs = ops.where(mask, inputs, 0)
        initial = steps.join(initial_state)
        states = self._solve(steps, inputs, mask, initial)
        outputs, states = with_gradient(steps, inputs, mask, initial, states)
        outputs = self._masked(outputs, mask)
        return outputs[-1], ops.swapaxes(outputs, 0, 1), steps.split(states[-1])

    def _solve(self, steps, inputs, mask, initial):
        """The states (T, b, d), by sweeps, or one by one where these do not converge."""
        tolerance = self.tolerance or TOLERANCES[self.cell.compute_dtype]
        states, converged, count = parallel_states(
            steps, inputs, mask, initial, self.method, tolerance, self.max_sweeps or 50
        )
        self.sweeps.assign(ops.cast(count, "float32"))
        self.fallbacks.assign(self.fallbacks + ops.cast(ops.logical_not(converged), "float32"))
        _warn(converged, count)
        return ops.cond(
            converged,
            lambda: states,
            lambda: sequential_states(steps, inputs, mask, initial),
        )

    def _masked(self, outputs, mask):
        """Outputs (T, b, o) as `keras.layers.RNN` has them in masked steps."""
        if mask is None:
            return outputs
        outputs = ops.where(mask, outputs, 0)
        if self.zero_output_for_mask:
            return outputs
        # A masked step repeats the output before it, which is 0 before the first.
        repeats = ops.broadcast_to(ops.where(mask, 0, 1), ops.shape(outputs))
        return linear_recurrence(repeats, outputs, ops.zeros_like(outputs[0]))

    def get_config(self):
        config = super().get_config()
        config["cell"].pop("build_config", None)  # the layer builds its cell
        return {
            **config,
            "method": self.method,
            "tolerance": self.tolerance,
            "max_sweeps": self.max_sweeps,
        }


def _check_cell(cell):
    """Raises ValueError unless `ParallelRNN` can compute all steps of a cell at once."""
    sizes = tree.flatten(getattr(cell, "state_size", None))
    if not isinstance(cell, keras.layers.Layer) or not all(isinstance(n, int) for n in sizes):
        raise ValueError(
            "Expected a cell: a layer with `call(inputs, states)` and a `state_size` that is an int "
            f"or a list of ints. Received: cell={cell}, with state_size="
            f"{getattr(cell, 'state_size', None)}"
        )
    if getattr(cell, "elementwise", False) and len(sizes) != 1:
        raise ValueError(
            "Expected one state of a cell with `elementwise = True`: its derivative is a diagonal. "
            f"Received: state_size={cell.state_size}"
        )
    for part in [cell, *layers_inside(cell)]:
        rates = [getattr(part, name, 0) for name in ("dropout", "recurrent_dropout")]
        if any(rates):
            raise ValueError(
                "A cell keeps one dropout mask for one step and cannot drop all steps at once: put "
                "`keras.layers.Dropout` before the layer instead. "
                f"Received: cell={part.name}, dropout={rates[0]}, recurrent_dropout={rates[1]}"
            )


def _warn(converged, count):
    """Warns of a loop over the steps, unless the value is not known yet, as in a graph."""
    try:
        slow = not bool(converged)
    except TypeError:
        return
    if slow:
        warnings.warn(
            "The sweeps did not converge, and the states were computed one after the other. "
            f"Received: a sequence for which {int(count)} sweeps were not enough, or gave NaN",
            stacklevel=2,
        )
