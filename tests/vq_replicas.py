"""The codebook of `VQAttention` after a step on one replica or on two."""

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
        layer = VQAttention(2, 4, codes=5, block_length=3, momentum=0.5)
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
