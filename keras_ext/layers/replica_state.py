def replica_state(layer, shape, initializer, name, trainable=False):
    """Adds a weight that is the same on all replicas, and float32 whatever the policy.

    Args:
        layer: the layer that keeps it.
        shape: tuple of ints.
        initializer: as of `keras.layers.Layer.add_weight`.
        name: str.
        trainable: bool. What is not is assigned equal values on all replicas. Defaults to False.

    Returns:
        `keras.Variable`.
    """
    return layer.add_weight(
        shape,
        initializer,
        dtype="float32",
        autocast=False,
        trainable=trainable,
        aggregation="mean" if trainable else "only_first_replica",
        name=name,
    )
