"""What an optimizer must know of replicas, of state that functions change, and of sparse gradients.

Gradients reach an optimizer in the context of one replica. There they can be summed, but a
condition around anything that talks to the other replicas must be taken in the context of all.
TensorFlow is imported only where there can be several replicas.
"""

import keras
from keras import ops

from keras_ext.keras_internals import strategy_of
from keras_ext.ops.replicas import replica_count
from keras_ext.ops.replicas import sum_over_replicas as sum_of_replicas


def run_if(condition, function, gradients, variables):
    """Calls `function(gradients)` where a condition holds, else does nothing.

    Args:
        condition: boolean scalar, equal on all replicas.
        function: function of the gradients of its replica. It may change the variables.
        gradients: list of tensors or None.
        variables: list of `keras.Variable`, all that the function may read or change.
    """
    if keras.backend.backend() == "jax":
        _run_if_functional(condition, function, gradients, variables)
    elif _distributed():
        _run_if_on_replicas(condition, function, gradients)
    else:
        ops.cond(condition, lambda: function(gradients), lambda: None)


def _distributed():
    """Whether there is a strategy: its variables talk to each other even on one device."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.distribute.has_strategy()


def _run_if_functional(condition, function, gradients, variables):
    """The branches of JAX return the new values: an assignment must not leave a branch."""
    current = [variable.value for variable in variables]

    def changed():
        state = zip(variables, current, strict=True)
        with keras.StatelessScope(state_mapping=state) as scope:
            function(gradients)
        return [scope.get_current_value(variable) for variable in variables]

    values = ops.cond(condition, changed, lambda: current)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _run_if_on_replicas(condition, function, gradients):
    import tensorflow as tf

    def merged(strategy, condition, gradients):
        condition = strategy.experimental_local_results(condition)[0]

        def call():
            strategy.extended.call_for_each_replica(function, args=(gradients,))

        ops.cond(condition, call, lambda: None)

    tf.distribute.get_replica_context().merge_call(merged, args=(condition, gradients))


def sum_over_replicas(tensors):
    """The sum of each tensor over the replicas, on every replica.

    Args:
        tensors: list of tensors, sparse gradients or None.

    Returns:
        A list of the same.

    Raises:
        ValueError: if several replicas are compiled by XLA.
    """
    known = [tensor for tensor in tensors if tensor is not None]
    if replicas() == 1:
        return tensors
    sums = iter(sum_of_replicas(known))
    return [None if tensor is None else next(sums) for tensor in tensors]


def on_first_replica(tensors):
    """The tensors on the first replica and zeros on the others, so that their sum is exact."""
    if replicas() == 1:
        return tensors
    import tensorflow as tf

    first = ops.equal(tf.distribute.get_replica_context().replica_id_in_sync_group, 0)
    return [
        None if tensor is None else ops.multiply(tensor, ops.cast(first, tensor.dtype))
        for tensor in tensors
    ]


def on_all_replicas(optimizer, function):
    """Calls a function as a training step would: once on every replica of the optimizer."""
    if keras.backend.backend() == "tensorflow":
        strategy_of(optimizer).run(function)
    else:
        function()


def replicas():
    """The number of replicas that take part in this step."""
    count = replica_count()
    if count is None:
        raise ValueError(
            "An optimizer is applied on each replica: call it inside `strategy.run`. "
            "Received: a call in the context of all replicas"
        )
    return count


def values_of(gradient):
    """The values of a gradient as a dense tensor: of a sparse one the rows that it holds."""
    return gradient.values if is_sparse(gradient) else gradient


def is_sparse(gradient):
    """Whether a gradient is that of TensorFlow's embeddings: rows, and their indices."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return isinstance(gradient, tf.IndexedSlices)


def dense(gradient):
    """A gradient as a dense tensor: rows that a sparse one has several times are added up."""
    if not is_sparse(gradient):
        return gradient
    import tensorflow as tf

    return tf.convert_to_tensor(gradient)


def with_values(gradient, values):
    """A gradient like another one, with other values."""
    if not is_sparse(gradient):
        return values
    import tensorflow as tf

    return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)


def squared_norm(gradient):
    """The sum of the squares of the values of a gradient, in float32.

    Square and sum are two passes over memory, TensorFlow's kernel for both at once is one.
    """
    values = ops.cast(values_of(gradient), "float32")
    if keras.backend.backend() != "tensorflow":
        return ops.sum(ops.square(values))
    import tensorflow as tf

    return 2.0 * tf.nn.l2_loss(values)
