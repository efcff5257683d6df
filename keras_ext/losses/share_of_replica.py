"""What a loss of the whole batch returns on each of several replicas."""

from keras_ext.ops.replicas import replica_count


def share_of_replica(loss, reduction):
    """The part of a loss of all rows that one replica returns, so that the parts sum up to it.

    Keras divides a mean by the number of replicas, whose gradients are summed, and leaves a sum as
    it is.

    Args:
        loss: what `keras.losses.Loss` made of the rows of all replicas.
        reduction: the reduction of the loss.

    Returns:
        The loss, divided where Keras does not.

    Raises:
        ValueError: on several replicas for losses that are not reduced.
    """
    count = replica_count() or 1
    if count == 1:
        return loss
    if reduction in (None, "none"):
        raise ValueError(
            "A loss of the whole batch has no losses of the rows of one replica. Expected another "
            f"reduction on several replicas. Received: {reduction=}, {count} replicas"
        )
    return loss / count if reduction == "sum" else loss
