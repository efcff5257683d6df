"""Training with Tiger on two replicas, and on one device. See on_replicas.py."""

import keras
import numpy as np
import tensorflow as tf

from keras_ext.optimizers import Tiger

START = np.linspace(-1.0, 1.0, 8).reshape(4, 2).astype("float32")
STEPS = 7


def gradients(replica, step, bad):
    """For a kernel and, sparse, for a table; their sums are exact in float32.

    Args:
        replica: 0 or 1, or None for those of both.
        step: int.
        bad: list of (step, replica) where the kernel's are NaN.
    """
    if replica is None:
        pairs = zip(gradients(0, step, bad), gradients(1, step, bad), strict=True)
        (a, b), (one, other) = pairs
        slices = [tf.concat(parts, 0) for parts in zip(one, other, strict=True)]
        return a + b, tuple(slices)
    rng = np.random.default_rng([replica, step])
    kernel = rng.integers(-8, 9, (4, 2)) / 8
    if [step, replica] in bad:
        kernel[1, 0] = np.nan
    rows = rng.integers(-8, 9, (2, 2)) / 8
    indices = rng.integers(0, 3, 2)
    return tf.constant(kernel, "float32"), (tf.constant(rows, "float32"), tf.constant(indices))


def both_ways(strategy, arguments, bad):
    """What there is after some micro-steps: on each replica, and on a single device.

    Args:
        strategy: on two replicas.
        arguments: dict for `Tiger`.
        bad: as in `gradients`.

    Returns:
        Three lists of all variables as nested lists of numbers.
    """
    with strategy.scope():
        state, step = start(arguments)
    run = tf.function(lambda given: strategy.run(step, args=(given,)), autograph=False)
    for i in range(STEPS):
        given = strategy.experimental_distribute_values_from_function(
            lambda context, i=i: gradients(context.replica_id_in_sync_group, i, bad)
        )
        run(given)
    local = [strategy.experimental_local_results(variable.value) for variable in state]
    found = [[np.array(each[replica]).tolist() for each in local] for replica in range(2)]
    state, step = start(arguments)
    for i in range(STEPS):
        step(gradients(None, i, bad))
    return [*found, [np.array(variable).tolist() for variable in state]]


def start(arguments):
    """The variables of a model and of its optimizer, and a step with given gradients."""
    weights = [keras.Variable(START, name=name) for name in ("kernel", "embeddings")]
    optimizer = Tiger(0.25, **arguments)
    optimizer.build(weights)

    @tf.function(autograph=False)
    def step(gradients):
        kernel, slices = gradients
        optimizer.apply([kernel, tf.IndexedSlices(*slices, tf.constant([4, 2]))])

    return [*weights, *optimizer.variables], step
