"""Optimizers inside of optimizers: the one walk through them."""


def nested(optimizer):
    """An optimizer and all that stand inside of it, from the outside in."""
    yield optimizer
    inside = [getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", [])]
    for inner in inside:
        if inner is not None:
            yield from nested(inner)


def innermost(optimizer):
    """The optimizer of Keras at the centre of a stack of wrappers; it may be a MultiOptimizer."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


def side_by_side(optimizer):
    """The optimizers of a `keras.optimizers.MultiOptimizer`; of any other, that itself."""
    return getattr(optimizer, "optimizers", [optimizer])


def outermost(optimizer, *names):
    """What the outermost optimizer that has one of these attributes has there, the first name first.

    Args:
        optimizer: a Keras optimizer.
        *names: str, attributes; one that is None counts as missing.

    Returns:
        The attribute, or None if there is none.
    """
    found = (getattr(each, name, None) for name in names for each in nested(optimizer))
    return next((value for value in found if value is not None), None)
