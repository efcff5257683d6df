import keras
from keras import ops

BLOCK = 16


def linear_recurrence(gates, inputs, initial):
    """All states of a linear recurrence at once, in blocks and not step by step.

        x_t = G_t x_{t-1} + h_t,  t = 1 ... T

    Time is the first axis. The sequence is cut in blocks of 16 steps, of which all are at the same
    step at once, from an unknown start: x = P start + q. What a block does from start to end is one
    step of a sequence that is 16 times shorter, and so on. So there are O(log T) operations one
    after the other, and O(T) numbers to compute, some three times those of the loop. Where the
    length is unknown when traced, which happens in TensorFlow, the sequence is cut twice, and a loop
    goes over what is left.

    `keras.ops.associative_scan` computes the same, and is not used: for 8,192 steps of (4, 16) XLA on
    TensorFlow does not compile it, its graph is some times slower than blocks, and on JAX it takes
    longer, too (`benchmarks/parallel_rnn.py scan`).

    The gradient is the same recurrence backwards, and keeps nothing but gates and states:

        l_t = dx_t + G_{t+1}^T l_{t+1},  dh_t = l_t,  dG_t = l_t x_{t-1}^T

    It is computed in float32, or float64 where `inputs` are that, and given in the dtype of
    `inputs`: products of gates overflow in half precision.

    Args:
        gates: (T, ..., d), a factor for each number of the state, or (T, ..., d, d), a matrix G_t.
        inputs: (T, ..., d), h_t.
        initial: (..., d), x_0.

    Returns:
        (T, ..., d), x_1 to x_T.

    Raises:
        ValueError: if the shapes of the arguments do not go together, as far as they are known when
            traced. Nothing is broadcast: the gradient would have to be summed again.

    Example:

    >>> import numpy as np
    >>> gates, ones = np.full((4, 1), 0.5, "float32"), np.ones((4, 1), "float32")
    >>> np.asarray(linear_recurrence(gates, ones, ones[0]))[:, 0].tolist()
    [1.5, 1.75, 1.875, 1.9375]

    Source: Eric Martin and Chris Cundy, Parallelizing linear recurrent neural nets over sequence
    length, 2018, https://arxiv.org/abs/1709.04057
    """
    inputs = ops.convert_to_tensor(inputs)
    given = keras.backend.standardize_dtype(inputs.dtype)
    dtype = "float64" if given == "float64" else "float32"
    gates, inputs, initial = (ops.cast(x, dtype) for x in (gates, inputs, initial))
    full = _is_full(*(tuple(x.shape) for x in (gates, inputs, initial)))

    @ops.custom_gradient
    def recurrence(gates, inputs, initial):
        states = _states(gates, inputs, initial, full)

        def gradient(*upstream, **_):
            adjoint = adjoint_recurrence(gates, upstream[-1])
            before = previous_states(states, initial)
            # Of row i and column j the products l_i x_j.
            products = adjoint[..., None] * before[..., None, :] if full else adjoint * before
            first = ops.swapaxes(gates[0], -1, -2) if full else gates[0]
            return products, adjoint, _times(first, adjoint[0], full)

        return states, gradient

    return ops.cast(recurrence(gates, inputs, initial), given)


def adjoint_recurrence(gates, upstream):
    """What the gradient of all states means for what is added in each step.

        l_t = dx_t + G_{t+1}^T l_{t+1},  l_T = dx_T

    Args:
        gates: (T, ..., d) or (T, ..., d, d), see `linear_recurrence`.
        upstream: (T, ..., d), dx_t.

    Returns:
        (T, ..., d), l_t.

    Example:

    >>> import numpy as np
    >>> gates, ones = np.full((3, 1), 0.5, "float32"), np.ones((3, 1), "float32")
    >>> np.asarray(adjoint_recurrence(gates, ones))[:, 0].tolist()
    [1.75, 1.5, 1.0]
    """
    full = len(gates.shape) > len(upstream.shape)
    later = ops.concatenate([gates[1:], ops.zeros_like(gates[:1])])
    later = ops.flip(ops.swapaxes(later, -1, -2) if full else later, 0)
    states = _states(later, ops.flip(upstream, 0), ops.zeros_like(upstream[0]), full)
    return ops.flip(states, 0)


def previous_states(states, initial):
    """x_0 to x_{T-1}, of x_1 to x_T and x_0.

    Args:
        states: (T, ..., d).
        initial: (..., d).

    Returns:
        (T, ..., d).

    Example:

    >>> import numpy as np
    >>> np.asarray(previous_states(np.float32([[1], [2], [3]]), np.float32([0])))[:, 0].tolist()
    [0.0, 1.0, 2.0]
    """
    return ops.concatenate([initial[None], states[:-1]])


def _is_full(gates, inputs, initial):
    """Whether gates are matrices; raises ValueError for shapes that do not go together."""
    full = len(gates) > len(inputs)
    expected = [(gates, inputs + inputs[-1:] if full else inputs), (initial, inputs[1:])]
    if not inputs or not all(
        len(shape) == len(other)
        and all(None in (n, m) or n == m for n, m in zip(shape, other, strict=True))
        for shape, other in expected
    ):
        raise ValueError(
            "Expected gates of (T, ..., d) or (T, ..., d, d), inputs of (T, ..., d) and an initial "
            f"state of (..., d). Received: gates {gates}, inputs {inputs}, initial {initial}"
        )
    return full


def _states(gates, inputs, initial, full, cuts=0):
    """`linear_recurrence` without gradient, of a sequence that has been cut `cuts` times."""
    length = inputs.shape[0]
    if length is not None and length <= BLOCK:
        return _unrolled(gates, inputs, initial, full)
    if length is None and cuts == 2:
        return _loop(gates, inputs, initial, full)
    gates, blocks = _cut(gates, length), _cut(inputs, length)
    products, sums = [gates[:, 0]], [blocks[:, 0]]
    for j in range(1, BLOCK):
        products.append((ops.matmul if full else ops.multiply)(gates[:, j], products[-1]))
        sums.append(_times(gates[:, j], sums[-1], full) + blocks[:, j])
    ends = _states(products[-1], sums[-1], initial, full, cuts + 1)
    starts = previous_states(ends, initial)
    inner = [_times(p, starts, full) + q for p, q in zip(products[:-1], sums[:-1], strict=True)]
    states = ops.stack([*inner, ends], axis=1)
    states = ops.reshape(states, (-1, *ops.shape(inputs)[1:]))
    return states[: ops.shape(inputs)[0]]


def _cut(x, length):
    """(T, ...) to (blocks, 16, ...), with zeros after the end."""
    missing = -(ops.shape(x)[0] if length is None else length) % BLOCK
    x = ops.concatenate([x, ops.zeros((missing, *ops.shape(x)[1:]), x.dtype)])
    return ops.reshape(x, (-1, BLOCK, *ops.shape(x)[1:]))


def _unrolled(gates, inputs, state, full):
    states = []
    for t in range(inputs.shape[0]):
        state = _times(gates[t], state, full) + inputs[t]
        states.append(state)
    return ops.stack(states) if states else inputs


def _loop(gates, inputs, initial, full):
    # Over indices: Keras scans several tensors of unknown length in JAX alone.
    def step(state, t):
        state = ops.reshape(_times(gates[t], state, full) + inputs[t], ops.shape(state))
        return state, state

    states = ops.scan(step, initial, ops.arange(ops.shape(inputs)[0]))[1]
    return ops.reshape(states, ops.shape(inputs))


def _times(gates, x, full=False):
    return ops.sum(gates * x[..., None, :], axis=-1) if full else gates * x
