"""What the tests of accumulation run on one device and, see on_replicas.py, on two replicas."""

import accumulation_matrix
import keras
import numpy as np
from keras import ops

BATCH = 4


def difference(strategy, case):
    """As in the matrix."""
    return accumulation_matrix.difference(case, strategy)


def steps(strategy, optimizer, count, jit_compile=False, flush=False):
    """A weight on each replica after each step, and after a flush; or the error.

    It starts at 0, and its gradient is (1, 1) on the first replica and (2, 2) on the other.
    """
    import tensorflow as tf

    with strategy.scope():
        variable = keras.Variable(np.zeros(2, "float32"), name="kernel")
        optimizer = keras.optimizers.deserialize(optimizer)
        optimizer.build([variable])

    def step():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply([ops.ones((2,)) * ops.cast(replica + 1, "float32")])

    def values():
        on_replicas = strategy.experimental_local_results(variable.value)
        return [value.numpy().tolist() for value in on_replicas]

    run = tf.function(lambda: strategy.run(step), autograph=False, jit_compile=jit_compile)
    found = []
    try:
        for _ in range(count):
            run()
            found.append(values())
        if flush:
            optimizer.flush()
            found.append(values())
    except (RuntimeError, ValueError) as error:
        return str(error)
    return found


def small_model(optimizer, **kwargs):
    """A model with a table and a matrix, which starts the same each time."""
    layers = [keras.layers.Embedding(5, 3), keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((2,), dtype="int32"), *layers])
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.weights])
    model.compile(optimizer, "mse", **kwargs)
    return model


def data(first, last):
    """Inputs and targets of the micro-batches from one number up to another, at most 6."""
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 5, (6 * BATCH, 2)), rng.normal(size=(6 * BATCH, 1))
    part = slice(first * BATCH, last * BATCH)
    return x[part], y[part].astype("float32")


def trained(model, first, last):
    """The model, trained on these micro-batches."""
    for step in range(first, last):
        model.train_on_batch(*data(step, step + 1))
    return model


def save_in_a_window(strategy, optimizer, path):
    """Saves a model after 3 micro-batches."""
    with strategy.scope():
        model = small_model(keras.optimizers.deserialize(optimizer))
        trained(model, 0, 3).save(path)
