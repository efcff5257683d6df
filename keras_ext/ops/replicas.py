"""What the replicas of a `tf.distribute` strategy know of each other.

TensorFlow is imported only where there can be several.
"""

import keras


def replica_count():
    """The number of replicas that take part in what is computed here.

    Returns:
        int, 1 where there is no strategy; None in the context of all replicas, outside of
        `strategy.run`.

    Raises:
        ValueError: if several replicas are compiled by XLA.
    """
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None:
        return None
    count = context.num_replicas_in_sync
    if count > 1 and _compiled_by_xla():
        raise ValueError(
            "XLA cannot compile a training step on several replicas: pass jit_compile=False to "
            "`compile`, or train on one device (TPUs with several cores: on JAX). "
            f"Received: {count} replicas with jit_compile=True"
        )
    return count


def replica_index():
    """Which of the replicas this is, for what must differ between them, such as random numbers.

    Returns:
        int or int32 scalar, 0 where there is one, or outside of `strategy.run`.
    """
    if replica_count() in (None, 1):
        return 0
    import tensorflow as tf

    return tf.distribute.get_replica_context().replica_id_in_sync_group


def gather_over_replicas(values):
    """The rows of all replicas, on each of them, for what a whole batch is needed.

    The gradient of a row is the sum of the gradients that it has on all replicas.

    Args:
        values: structure of tensors (b, ...); None, Python numbers and scalars stay as they are.

    Returns:
        The structure, with tensors (B, ...), the rows of the first replica first.
    """
    if replica_count() in (None, 1):
        return values
    import tensorflow as tf

    def gather(value):
        if not keras.ops.is_tensor(value) or len(value.shape) == 0:
            return value
        if value.dtype == "bool":
            return tf.cast(gather(tf.cast(value, "int32")), "bool")
        return tf.distribute.get_replica_context().all_gather(value, axis=0)

    return keras.tree.map_structure(gather, values)


def sum_over_replicas(tensors):
    """The sum of each tensor over the replicas, on every replica.

    Args:
        tensors: list of tensors of one shape on all replicas. No gradient should pass.

    Returns:
        A list of the same shapes.

    Raises:
        ValueError: if several replicas are compiled by XLA.
    """
    if replica_count() in (None, 1) or not tensors:
        return tensors
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensors)


def _compiled_by_xla():
    """Whether what is traced now will be compiled by XLA."""
    import tensorflow as tf

    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        context = graph._get_control_flow_context()
        while context is not None:
            if context.IsXLAContext():
                return True
            context = context.outer_context
        graph = getattr(graph, "outer_graph", None)
    return False
