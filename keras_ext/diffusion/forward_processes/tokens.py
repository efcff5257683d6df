"""What processes of tokens have in common: which ids are data, drawing, cross-entropy."""

import keras
import numpy as np
from keras import ops

from keras_ext.diffusion.checks import is_traced
from keras_ext.diffusion.noise import uniform

NEVER = -1e9
"""The logit of what must not be drawn: finite, as 0 times infinity is NaN."""


def checked_tokens(x, vocabulary_size, name="x"):
    """A state of tokens as a tensor.

    Args:
        x: (b, ...) integers.
        vocabulary_size: int.
        name: str, what errors call it.

    Returns:
        int32 of that shape.

    Raises:
        ValueError: for floats, fewer than two axes, no samples, and, where the values can be read,
            ids beyond the vocabulary.

    Example:

    >>> tuple(checked_tokens(np.zeros((2, 3), "int64"), 5).shape)
    (2, 3)
    """
    x = x if hasattr(x, "dtype") else np.asarray(x)
    check_form(x, None, name)
    if not is_traced():
        check_ids(ops.convert_to_numpy(x), vocabulary_size, None, name)
    return ops.cast(x, "int32")


def check_data(x, shape, vocabulary_size, mask_id):
    """Refuses tokens on which no model can be trained.

    Args:
        x: (b, ...) array or tensor.
        shape: tuple, that of one sample, or None for any.
        vocabulary_size: int.
        mask_id: int, the id that is no data, or None.

    Raises:
        ValueError: for floats, another shape, no samples and ids that are no data.

    Example:

    >>> check_data(np.array([[0, 1, 2]]), (None,), 4, mask_id=3)
    """
    check_form(x, shape, "x")
    if not is_traced():
        check_ids(ops.convert_to_numpy(x), vocabulary_size, mask_id, "x")


def check_form(x, shape, name):
    """Refuses a dtype or a shape, which are known in a graph, too.

    Args:
        x: (b, ...) array or tensor.
        shape: tuple, that of one sample, or None for any.
        name: str, what errors call it.

    Raises:
        ValueError: for floats and another shape.

    Example:

    >>> check_form(np.zeros((5, 2), "int32"), (2,), "x")
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    if not keras.backend.is_int_dtype(dtype):
        raise ValueError(f"Expected {name} of token ids, integers. Received: dtype={dtype}")
    received = tuple(x.shape)
    wrong = len(received) < 2 or 0 in received
    if shape is not None and not wrong:
        wrong = len(received) != len(shape) + 1 or any(
            None not in (a, b) and a != b for a, b in zip(received[1:], shape, strict=True)
        )
    if wrong:
        form = "n" if shape is None else ", ".join(map(str, shape))
        raise ValueError(
            f"Expected {name} of shape (b, {form}), at least one sample. Received: shape={received}"
        )


def check_ids(values, vocabulary_size, mask_id, name):
    """Refuses ids beyond the vocabulary, and the one that is no data.

    Args:
        values: NumPy array of integers.
        vocabulary_size: int.
        mask_id: int or None.
        name: str, what errors call the values.

    Raises:
        ValueError: if there are some.

    Example:

    >>> check_ids(np.arange(5), 5, None, "x")
    """
    bad = (values < 0) | (values >= vocabulary_size)
    expected = f"token ids from 0 to {vocabulary_size - 1}"
    if mask_id is not None:
        bad |= values == mask_id
        expected += f" without {mask_id}, which stands for a masked token"
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"Expected {expected}. Received: {name}[{place}]={values[place]}, ids from "
            f"{values.min()} to {values.max()}"
        )


def are_data(x, vocabulary_size, mask_id):
    """What `check_ids` looks for, sample by sample, in a graph.

    Args:
        x: (b, ...) int32 tensor.
        vocabulary_size: int.
        mask_id: int or None.

    Returns:
        (b,) bool.

    Example:

    >>> x = ops.convert_to_tensor([[0, 1], [2, 3], [4, 0]])
    >>> ops.convert_to_numpy(are_data(x, 4, mask_id=2)).tolist()
    [True, False, False]
    """
    fine = ops.logical_and(x >= 0, x < vocabulary_size)
    if mask_id is not None:
        fine = ops.logical_and(fine, x != mask_id)
    return ops.all(fine, axis=tuple(range(1, len(x.shape))))


def finite_logits(logits, mask_id):
    """Logits in float32 of which none is below `NEVER`, and that of no data is `NEVER`.

    Args:
        logits: (..., vocabulary_size).
        mask_id: int or None.

    Returns:
        float32 of that shape.

    Example:

    >>> ops.convert_to_numpy(finite_logits(np.array([[1.0, -np.inf, 3.0]]), 2)).tolist()
    [[1.0, -1000000000.0, -1000000000.0]]
    """
    logits = ops.maximum(ops.cast(logits, "float32"), NEVER)
    if mask_id is None:
        return logits
    return ops.where(ops.arange(logits.shape[-1]) == mask_id, NEVER, logits)


def draw_tokens(logits, mask_id, seed, draw):
    """Draws from softmax(logits): the largest of logits + Gumbel noise.

    Args:
        logits: (b, ..., vocabulary_size); -infinity for what is impossible.
        mask_id: int, the id that is not drawn, or None.
        seed: (2,) uint32.
        draw: int or int scalar.

    Returns:
        (b, ...) int32, a function of seed and place.

    Example:

    >>> from keras_ext.diffusion.noise import seed_pair
    >>> logits = np.log(np.full((1000, 4), [0.5, 0.3, 0.2, 1.0], "float32"))
    >>> drawn = ops.convert_to_numpy(draw_tokens(logits, 3, seed_pair(0), 0))
    >>> bool(np.abs(np.bincount(drawn) / 1000 - [0.5, 0.3, 0.2]).max() < 0.05)
    True
    """
    logits = finite_logits(logits, mask_id)
    gumbel = -ops.log(-ops.log(uniform(seed, draw, ops.shape(logits))))
    return ops.cast(ops.argmax(logits + gumbel, axis=-1), "int32")


def cross_entropy(x0, logits, mask_id):
    """-log p of each token.

    Args:
        x0: (b, ...) int32; what is beyond the vocabulary counts as the nearest that is not.
        logits: (b, ..., vocabulary_size).
        mask_id: int, of probability 0, or None.

    Returns:
        (b, ...) float32.

    Example:

    >>> loss = cross_entropy(ops.zeros((1, 1), "int32"), ops.zeros((1, 1, 3)), 2)
    >>> round(float(loss[0, 0]), 3)
    0.693
    """
    logits = finite_logits(logits, mask_id)
    x0 = ops.clip(x0, 0, logits.shape[-1] - 1)
    chosen = ops.take_along_axis(logits, x0[..., None], axis=-1)[..., 0]
    return ops.logsumexp(logits, axis=-1) - chosen
