"""Which axes of the data are places."""


def spatial_axes(x):
    """The axes of places: those of images (b, h, w, c), sequences (b, n, c), and (b, n).

    Args:
        x: tensor.

    Returns:
        Tuple of ints.

    Raises:
        ValueError: for another number of axes, and places whose number is not known.

    Example:

    >>> import numpy as np
    >>> spatial_axes(np.zeros((5, 8, 8, 1)))
    (1, 2)
    """
    axes = {2: (1,), 3: (1,), 4: (1, 2)}.get(len(x.shape))
    if axes is None or any(x.shape[axis] is None for axis in axes):
        raise ValueError(
            "Expected images (b, h, w, c), sequences (b, n, c) or (b, n), of a known size. "
            f"Received: shape={tuple(x.shape)}"
        )
    return axes
