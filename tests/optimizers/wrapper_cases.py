"""Cases of the wrappers that change the update, on two replicas. See on_replicas.py."""

import keras
import numpy as np
import tensorflow as tf

from keras_ext.optimizers import (
    GradientAccumulation,
    GuardedLossScale,
    LayerAdaptation,
    Lookahead,
    NonFiniteGuard,
    ParameterwiseLR,
)


def lazy_rows(strategy):
    """Which rows move on each replica if each has a sparse gradient of one row; and on one."""

    def train(rows):
        table = keras.Variable(np.ones((5, 2), "float32"), name="embeddings")
        optimizer = ParameterwiseLR(keras.optimizers.Adam(0.1), [], lazy_rows="embeddings")
        optimizer.build([table])

        @tf.function(autograph=False)
        def step(rows):
            values = tf.ones((tf.size(rows), 2))
            optimizer.apply([tf.IndexedSlices(values, rows, tf.constant([5, 2]))], [table])

        return table, step

    with strategy.scope():
        table, step = train(None)
        rows = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant([[1], [3]][context.replica_id_in_sync_group])
        )
        strategy.run(step, args=(rows,))
        values = strategy.experimental_local_results(table.value)
    single, step = train(None)
    step(tf.constant([1, 3]))
    moved = [np.flatnonzero(np.any(np.array(v) != 1.0, axis=-1)).tolist() for v in values]
    return moved, np.flatnonzero(
        np.any(keras.ops.convert_to_numpy(single) != 1.0, axis=-1)
    ).tolist()


def lookahead(strategy):
    """The weights after four steps with Lookahead around Adam, on two replicas and on one."""

    def new(_=None):
        kernel = keras.Variable(np.array([[1.0, -2.0]], "float32"), name="kernel")
        adam = keras.optimizers.Adam(0.125, use_ema=True)
        optimizer = Lookahead(LayerAdaptation(adam), sync_period=2)
        optimizer.build([kernel])

        @tf.function(autograph=False)
        def step(gradient):
            optimizer.apply([gradient], [kernel])

        average = adam._model_variables_moving_average[0]
        return kernel, average, step

    with strategy.scope():
        kernel, average, step = new()
    for _ in range(4):
        gradients = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                [[0.5, 1.0], [0.25, -0.5]][context.replica_id_in_sync_group]
            )
        )
        strategy.run(step, args=(gradients,))
    results = [strategy.experimental_local_results(v.value) for v in (kernel, average)]
    replicas = [[v.numpy().tolist() for v in pair] for pair in zip(*results, strict=True)]
    kernel, average, step = new()
    for _ in range(4):
        step(tf.constant([[0.75, 0.5]]))
    return replicas, [keras.ops.convert_to_numpy(v).tolist() for v in (kernel, average)]


def xla(strategy):
    """What a compiled step on two replicas raises."""
    with strategy.scope():
        kernel = keras.Variable(np.ones((1, 2), "float32"), name="kernel")
        optimizer = LayerAdaptation(keras.optimizers.Adam(0.125))
        optimizer.build([kernel])

        @tf.function(autograph=False, jit_compile=True)
        def step():
            optimizer.apply([tf.ones((1, 2))], [kernel])

        try:
            strategy.run(step)
        except ValueError as error:
            return str(error)


def one_replica(strategy, jit_compile):
    """The weights after training with all wrappers on one replica of a strategy, and without."""

    def train():
        optimizer = NonFiniteGuard(GradientAccumulation(Lookahead("adam", sync_period=1), 2))
        optimizer = GuardedLossScale(optimizer)
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile(optimizer, "mse", jit_compile=jit_compile)
        x = np.random.default_rng(0).normal(size=(20, 3))
        x[7] = np.nan
        model.fit(x, x[:, :2], batch_size=2, shuffle=False, verbose=0)
        counters = [optimizer.skipped_steps, optimizer.iterations]
        counts = [int(keras.ops.convert_to_numpy(counter)) for counter in counters]
        return [w.tolist() for w in model.get_weights()], counts

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        found = train()
    return found, train()
