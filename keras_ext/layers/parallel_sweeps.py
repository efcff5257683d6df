"""All states of a recurrent cell at once: guesses that linear recurrences make better."""

from keras import ops

from keras_ext.ops.linear_recurrence import (
    adjoint_recurrence,
    linear_recurrence,
    previous_states,
)

METHODS = ("newton", "diagonal", "picard", "fixed")


def parallel_states(steps, inputs, mask, initial, method, tolerance, max_sweeps):
    """The states that sweeps over all steps come to.

    Args:
        steps: `CellSteps`.
        inputs: (T, b, k).
        mask: (T, b, 1) bool, or None.
        initial: (b, d).
        method: one of `METHODS`.
        tolerance: float.
        max_sweeps: int.

    Returns:
        (T, b, d) without gradient, whether they converged, bool, and the number of sweeps, int32.
    """
    inputs, initial = ops.stop_gradient(inputs), ops.stop_gradient(initial)
    constant = _constant_gates(steps, inputs, initial, method)

    def sweep(states):
        before = previous_states(states, initial)
        if constant is None:
            new, gates = steps.jacobian(inputs, before)
            if method == "diagonal" and not steps.elementwise:
                gates = ops.diagonal(gates, axis1=-2, axis2=-1)
        else:
            gates = constant
            with steps.frozen():
                new = steps.call(inputs, before)[1]
        rest = new - _apply(gates, before)
        if mask is not None:
            gates, rest = masked_gates(gates, mask), ops.where(mask, rest, 0)
        return linear_recurrence(gates, rest, initial)

    def unsettled(count, states, converged, finite):
        return ops.logical_and(finite, ops.logical_not(converged))

    def one(count, states, converged, finite):
        new = ops.reshape(sweep(states), ops.shape(states))
        # A comparison with NaN is false: neither is NaN taken for converged, nor goes it on.
        near = ops.abs(new - states) <= tolerance * ops.maximum(ops.abs(new), 1)
        return count + 1, new, ops.all(near), ops.all(ops.isfinite(new))

    start = ops.broadcast_to(initial, (ops.shape(inputs)[0], *ops.shape(initial)))
    values = (ops.zeros((), "int32"), start, ops.zeros((), "bool"), ops.ones((), "bool"))
    count, states, converged, _ = ops.while_loop(
        unsettled, one, values, maximum_iterations=max_sweeps
    )
    return ops.stop_gradient(states), converged, count


def sequential_states(steps, inputs, mask, initial):
    """The states, one step after the other: (T, b, d) without gradient."""
    inputs, initial = ops.stop_gradient(inputs), ops.stop_gradient(initial)

    def step(state, t):
        new = steps.call(inputs[t], state)[1]
        new = new if mask is None else ops.where(mask[t], new, state)
        new = ops.reshape(new, ops.shape(state))
        return new, new

    with steps.frozen():
        states = ops.scan(step, initial, ops.arange(ops.shape(inputs)[0]))[1]
    states = ops.reshape(states, (ops.shape(inputs)[0], *ops.shape(initial)))
    return ops.stop_gradient(states)


def with_gradient(steps, inputs, mask, initial, states):
    """Outputs and known states, with their gradient of weights, inputs and initial state.

    The cell is called on all steps at once, x_t = f(u_t, x_{t-1}) of states x_{t-1} that are held
    fixed. What the gradient with respect to x_t is for the weights comes from the recurrence of the
    adjoint, with the derivatives G_t of the cell at the same states, which nothing but a gradient
    computes:

        l_t = dx_t + G_{t+1}^T l_{t+1}

    Args:
        steps: `CellSteps`.
        inputs: (T, b, k).
        mask: (T, b, 1) bool, or None.
        initial: (b, d).
        states: (T, b, d), the solution.

    Returns:
        (T, b, o) outputs, what the cell gives in masked steps included, and (T, b, d) states.
    """
    before = previous_states(ops.stop_gradient(states), initial)
    outputs, new = steps.call(inputs, before)
    jacobian = steps.jacobian_later(inputs, before)
    if mask is not None:
        new = ops.where(mask, new, before)

    @ops.custom_gradient
    def attached(new):
        def gradient(*upstream, **_):
            gates = jacobian()[1]
            gates = gates if mask is None else masked_gates(gates, mask)
            return adjoint_recurrence(gates, upstream[-1])

        return new, gradient

    states = attached(new)
    if outputs is None:
        return steps.split(states)[0], states
    # Once more, for a gradient that goes through the states.
    return steps.call(inputs, previous_states(states, initial))[0], states


def masked_gates(gates, mask):
    """Gates, and the identity where the mask, (T, b, 1), is false: such a step changes nothing."""
    if len(gates.shape) == len(mask.shape):
        return ops.where(mask, gates, 1)
    return ops.where(mask[..., None], gates, ops.eye(gates.shape[-1], dtype=gates.dtype))


def _apply(gates, x):
    full = len(gates.shape) > len(x.shape)
    return ops.sum(gates * x[..., None, :], axis=-1) if full else gates * x


def _constant_gates(steps, inputs, initial, method):
    """The gates of all steps (T, b, d) or (T, b, d, d), or None where they depend on the states."""
    if method in ("newton", "diagonal"):
        return None
    shape = (ops.shape(inputs)[0], *ops.shape(initial))
    if method == "picard":
        return ops.zeros(shape, initial.dtype)
    zeros = [ops.zeros((1, 1, x.shape[-1]), x.dtype) for x in (inputs, initial)]
    gates = steps.jacobian(*zeros)[1]
    return ops.broadcast_to(gates, (*shape, *gates.shape[3:]))
