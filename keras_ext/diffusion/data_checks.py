"""What a model that is trained refuses: data that are no images, labels of no class."""

import keras
import numpy as np
from keras import ops

LARGEST = 2.0


def check_data(x, shape):
    """Refuses data on which no diffusion model can be trained.

    The noise at time 1 has a standard deviation of 1, so data should be about in [-1, 1], or have a
    standard deviation of about 1. Single values may be anything: what is refused is a root mean
    square above 2, that of images from 0 to 255 or 0 to 16 that nobody scaled.

    Args:
        x: (b, ...) array or tensor.
        shape: tuple, that of one sample, or None for any.

    Raises:
        ValueError: for integers, another shape, no samples, NaN and infinity, and data that are
            too large.

    Example:

    >>> check_data(np.zeros((5, 8, 8, 1), "float32"), (8, 8, 1))
    """
    check_form(x, shape)
    if x.shape[0] == 0:
        raise ValueError(f"Expected at least one sample. Received: x.shape={tuple(x.shape)}")
    values = ops.convert_to_numpy(x).ravel()
    if values.dtype.itemsize < 4:  # half precision would not hold the sum
        values = values.astype("float32")
    square = float(np.dot(values, values)) / values.size
    if not np.isfinite(square):
        bad = int(np.argmax(~np.isfinite(values)))
        place = tuple(int(i) for i in np.unravel_index(bad, tuple(x.shape)))
        raise ValueError(f"Expected finite data. Received: x[{place}]={values[bad]}")
    if square > LARGEST**2:
        raise ValueError(
            "Expected data of about [-1, 1], such as images / 127.5 - 1, or of a standard deviation "
            f"of about 1. Received: x from {values.min():g} to {values.max():g}, whose root mean "
            f"square is {square**0.5:g}"
        )


def check_form(x, shape):
    """Refuses a dtype or a shape, which are known in a graph, too.

    Args:
        x: (b, ...) array or tensor.
        shape: tuple, that of one sample, or None for any.

    Raises:
        ValueError: for integers and another shape.

    Example:

    >>> check_form(np.zeros((5, 2)), (2,))
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            "Expected data of a float dtype of about [-1, 1], such as images / 127.5 - 1. "
            f"Received: dtype={dtype}"
        )
    received = tuple(x.shape)
    wrong = len(received) < 2
    if shape is not None and not wrong:
        wrong = len(received) != len(shape) + 1 or any(
            None not in (a, b) and a != b for a, b in zip(received[1:], shape, strict=True)
        )
    if wrong:
        form = "..." if shape is None else ", ".join(map(str, shape))
        raise ValueError(f"Expected data of shape (b, {form}). Received: x.shape={received}")


def check_labels(label, num_classes, count=None):
    """Refuses labels that are no classes.

    Args:
        label: (b,) or (b, 1) integers, an array or a tensor.
        num_classes: int, which stands for no class, and is allowed; None: the network has none.
        count: int, number of samples, or None.

    Raises:
        ValueError: for floats, another number of labels, and labels beyond the classes.

    Example:

    >>> check_labels(np.array([0, 9, 10]), 10)
    """
    if num_classes is None:
        raise ValueError(
            "Expected no labels: the network has no `num_classes`. Received: labels of shape "
            f"{tuple(np.shape(label))}"
        )
    dtype = keras.backend.standardize_dtype(label.dtype)
    if not keras.backend.is_int_dtype(dtype):
        raise ValueError(f"Expected labels of an integer dtype. Received: dtype={dtype}")
    shape = tuple(label.shape)
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)) or count not in (None, shape[0]):
        raise ValueError(
            f"Expected one label for each sample, shape ({count or 'b'},). Received: shape={shape}"
        )
    values = ops.convert_to_numpy(label)
    if values.size and not 0 <= values.min() <= values.max() <= num_classes:
        raise ValueError(
            f"Expected labels from 0 to {num_classes - 1}, or {num_classes} for no class. "
            f"Received: labels from {values.min()} to {values.max()}"
        )


def seems_fit(x, label, num_classes):
    """What `check_data` and `check_labels` look for, in a graph.

    Args:
        x: (b, ...) float32 tensor, a batch, which may be larger than all of the data are.
        label: (b,) or (b, 1) integers, or None.
        num_classes: int, or None.

    Returns:
        (b,) or scalar bool.

    Example:

    >>> x, label = ops.zeros((2, 3)), ops.convert_to_tensor([0, 11])
    >>> ops.convert_to_numpy(seems_fit(x, label, 10)).tolist()
    [True, False]
    """
    fine = ops.mean(ops.square(x)) <= (3.0 * LARGEST) ** 2
    if label is None or num_classes is None:
        return fine
    label = ops.reshape(ops.cast(label, "int32"), (-1,))
    return ops.logical_and(fine, ops.logical_and(label >= 0, label <= num_classes))
