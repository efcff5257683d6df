"""`VQAttention` trained on one replica or on two."""

import keras
import numpy as np
import tensorflow as tf

from keras_ext.layers import VQAttention


def averages(strategy, replicas):
    """Sums and counts after a training call on four rows, and the first sums, as lists."""
    x = np.random.default_rng(0).normal(size=(4, 9, 6)).astype("float32")
    mask = np.random.default_rng(1).random((4, 9)) < 0.7
    if replicas == 1:
        strategy = tf.distribute.get_strategy()
    with strategy.scope():
        layer = VQAttention(2, 4, codes=5, block_length=3, decay=0.5)
        layer.build((None, None, 6))
    rng = np.random.default_rng(2)
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    start = layer.code_sums.numpy().tolist()
    rows = np.split(np.arange(4), replicas)

    def shared(array):
        parts = [tf.constant(array[each]) for each in rows]
        if replicas == 1:
            return parts[0]
        return strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group]
        )

    @tf.function
    def step(x, mask):
        strategy.run(lambda x, mask: layer(x, mask=mask, training=True), (x, mask))

    step(shared(x), shared(mask))
    return {
        "start": start,
        "sums": layer.code_sums.numpy().tolist(),
        "counts": layer.code_counts.numpy().tolist(),
    }


def fitted(strategy, replicas):
    """Losses of a fit of two layers, and the weights after it, as lists.

    The second half of each batch hides more tokens than the first.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 9, 6)).astype("float32")
    chance = np.array([0.9, 0.9, 0.3, 0.3] * 2)[:, None]
    mask = (rng.random((8, 9)) < chance).astype("int32")
    if replicas == 1:
        strategy = tf.distribute.get_strategy()
    keras.utils.set_random_seed(0)
    with strategy.scope():
        inputs, shown = keras.Input((9, 6)), keras.Input((9,), dtype="int32")
        y = inputs
        for _ in range(2):
            layer = VQAttention(2, 4, codes=5, block_length=3, commitment=0.5, decay=0.5)
            y = y + layer(y, mask=shown)
        model = keras.Model((inputs, shown), y)
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    history = model.fit((x, mask), x[..., ::-1], batch_size=4, epochs=3, shuffle=False, verbose=0)
    return {
        "losses": history.history["loss"],
        "weights": [weight.tolist() for weight in model.get_weights()],
    }
