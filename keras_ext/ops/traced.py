from keras import ops


def is_traced():
    """Whether operations are recorded, in a graph or for XLA, and not carried out.

    Returns:
        bool.

    Example:

    >>> is_traced()
    False
    """
    try:
        ops.convert_to_numpy(ops.add(ops.zeros(()), 1.0))
    except (NotImplementedError, TypeError):  # TensorFlow's, JAX's
        return True
    return False
