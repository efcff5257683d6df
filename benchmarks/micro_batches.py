"""Gradients of micro-batches that are exact in float32, and steps of an optimizer with them."""

import contextlib

import keras
import numpy as np
from keras import ops
from timing import BACKEND

from keras_ext.optimizers import Tiger

WINDOWS, STEPS, REPLICAS = 3, 4, 2
SHAPES = {"embeddings": (5, 3), "kernel": (3, 4)}
ROWS = 3  # in each sparse gradient, with repetitions


def make_variables():
    """A table and a matrix, the same in every case."""
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=shape).astype("float32") for name, shape in SHAPES.items()}
    return [keras.Variable(value, name=name) for name, value in values.items()]


def micro_batches():
    """The gradients of all micro-batches: the rows of a table with their indices, and a matrix.

    Returns:
        Three arrays, (windows, steps, replicas, rows) int32, (windows, steps, replicas, rows, 3)
        and (windows, steps, replicas, 3, 4) float32.
    """
    rng = np.random.default_rng(1)
    count = (WINDOWS, STEPS, REPLICAS)
    table, width = SHAPES["embeddings"]
    indices = rng.integers(0, table, (*count, ROWS))
    rows = rng.integers(-8, 9, (*count, ROWS, width)) / 16
    matrices = rng.integers(-8, 9, (*count, *SHAPES["kernel"])) / 16
    return indices.astype("int32"), rows.astype("float32"), matrices.astype("float32")


def steps_of(batches, poisoned):
    """The micro-batches in a row; if poisoned, with one more that is infinite on one replica."""
    steps = list(zip(*(x.reshape(-1, *x.shape[2:]) for x in batches), strict=True))
    if poisoned:
        indices, rows, matrices = steps[0]
        steps.insert(STEPS + 2, (indices, np.full_like(rows, [[[1.0]], [[np.inf]]]), matrices))
    return steps


def gradients_of(indices, rows, matrices, sparse):
    """The gradients of a table and a matrix from those of n parts of a batch.

    Args:
        indices: (n, rows) int32.
        rows: (n, rows, 3).
        matrices: (n, 3, 4).
        sparse: bool, whether the first one is as `keras.layers.Embedding` gives it.

    Returns:
        A list of two.
    """
    rows, indices = ops.reshape(rows, (-1, rows.shape[-1])), ops.reshape(indices, (-1,))
    if sparse:
        import tensorflow as tf

        table = tf.IndexedSlices(rows, indices, tf.constant(SHAPES["embeddings"]))
    else:
        one_hot = ops.one_hot(indices, SHAPES["embeddings"][0])
        table = ops.matmul(ops.transpose(one_hot), rows)
    return [table, ops.sum(matrices, axis=0)]


def compiled(step, state, run, strategy):
    """A function of the gradients of all replicas that makes a step.

    Args:
        step: function of the gradients of n parts of a batch.
        state: list of the variables that it changes.
        run: "eager", "graph" or "XLA".
        strategy: a `tf.distribute.Strategy`, or None.
    """
    if BACKEND == "jax":
        return compiled_by_jax(step, state)
    import tensorflow as tf

    def on_replicas(*parts):
        def on_replica():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            step(*(tf.gather(part, [replica]) for part in parts))

        strategy.run(on_replica)

    function = step if strategy is None else on_replicas
    if run == "eager":
        return function
    return tf.function(function, autograph=False, jit_compile=run == "XLA")


def compiled_by_jax(step, state):
    """The values of the state go in and come out."""
    import jax

    @jax.jit
    def pure(values, parts):
        with keras.StatelessScope(state_mapping=zip(state, values, strict=True)) as scope:
            step(*parts)
        return [scope.get_current_value(variable) for variable in state]

    def function(*parts):
        values = pure([variable.value for variable in state], parts)
        for variable, value in zip(state, values, strict=True):
            variable.assign(value)

    return function


def train(make, steps, sparse, run, strategy=None):
    """Trains new variables.

    Args:
        make: function that makes the optimizer.
        steps: list of the gradients of all replicas.
        sparse: bool, as for `gradients_of`.
        run: "eager", "graph" or "XLA".
        strategy: a `tf.distribute.Strategy`, or None.

    Returns:
        Dict of the weights and of the state of the innermost optimizer, by name.
    """
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        variables, optimizer = make_variables(), make()
        optimizer.build(variables)

    def step(*parts):
        scale = optimizer.scale_loss(ops.ones(()))
        optimizer.apply([ops.multiply(g, scale) for g in gradients_of(*parts, sparse)])

    function = compiled(step, variables + optimizer.variables, run, strategy)
    for parts in steps:
        function(*map(ops.convert_to_tensor, parts))
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    state = {v.name: ops.convert_to_numpy(v) for v in variables + optimizer.variables}
    if isinstance(optimizer, Tiger):  # the scale of its momentums depends on the micro-batches
        for name in [f"{name}_momentum" for name in SHAPES]:
            state[name] = state[name] / np.abs(state[name]).max()
    return {name: value.astype("float64") for name, value in state.items()}
