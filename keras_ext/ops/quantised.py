"""What quantisers share: the gradient past a jump, indices from users, counts of codes."""

from itertools import starmap

import keras
from keras import ops

from keras_ext.ops.settings import whole
from keras_ext.ops.traced import is_traced


def straight_through(value, x):
    """A value that passes its gradient on to x, as if it were x.

        y = sg(value) + x - sg(x),  sg a constant for the gradient

    The difference is 0 exactly: y has the bits of the value, which x + sg(value - x) has not.

    Args:
        value: tensor.
        x: tensor of its shape.

    Returns:
        tensor of that shape.

    Example:

    >>> float(straight_through(keras.ops.ones(()), keras.ops.zeros(())))
    1.0
    """
    return ops.stop_gradient(value) + (x - ops.stop_gradient(x))


def rotation_trick(code, x, epsilon=1e-6):
    """A code that passes its gradient on to x by the rotation and the scale that take x to it.

        y = s R x,  s = |code| / |x|,  R = I - 2 r r^T + 2 q p^T constants for the gradient,
        p = x / |x|,  q = code / |code|,  r = (p + q) / |p + q|

    y is the code, and dL/dx = s R^T dL/dy: the gradient has to x the angle that dL/dy has to the
    code. It is that of `straight_through` where x or the code is 0.

    Args:
        code: (..., d) float32.
        x: (..., d) float32.
        epsilon: float, the norm below which a vector is 0.

    Returns:
        (..., d), the bits of `code`.

    Example:

    >>> np.array(rotation_trick(np.float32([[0, 2]]), np.float32([[1, 0]]))).tolist()
    [[0.0, 2.0]]

    Source: Christopher Fifty et al., Restructuring Vector Quantization with the Rotation Trick,
    2024, https://arxiv.org/abs/2410.06424
    """
    code, start = ops.stop_gradient(code), ops.stop_gradient(x)
    lengths = [ops.sqrt(_product(each, each)) for each in (start, code)]
    turned = ops.logical_and(lengths[0] > epsilon, lengths[1] > epsilon)
    safe = [ops.maximum(length, epsilon) for length in lengths]
    p, q = start / safe[0], code / safe[1]
    both = p + q
    square = ops.maximum(_product(both, both), epsilon**2)  # of opposite vectors 0, as is r
    scaled = x - 2 * both * (_product(both, x) / square) + 2 * q * _product(p, x)
    return straight_through(code, ops.where(turned, safe[1] / safe[0] * scaled, x))


def _product(x, y):
    return ops.sum(x * y, -1, keepdims=True)


def checked_indices(indices, count):
    """Indices of codes as they come from users.

    Args:
        indices: integers of any shape.
        count: int, the number of codes.

    Returns:
        Pair of int32 tensors or a tensor and None: indices, all of them from 0 to count - 1, and
        where they were so before, or None if they were everywhere.

    Raises:
        ValueError: for another dtype, and, outside of graphs, for an index out of range.

    Example:

    >>> indices, known = checked_indices([2, 0], 3)
    >>> np.array(indices).tolist(), known
    ([2, 0], None)
    """
    indices = ops.convert_to_tensor(indices)
    dtype = keras.backend.standardize_dtype(indices.dtype)
    if "int" not in dtype:
        raise ValueError(f"Expected indices of an integer dtype. Received: dtype={dtype}")
    if dtype != "int64":  # smaller ones hold no count
        indices = ops.cast(indices, "int32")
    known = ops.logical_and(indices >= 0, indices < count)
    inside = ops.cast(ops.where(known, indices, ops.zeros_like(indices)), "int32")
    if is_traced():
        return inside, known
    if not bool(ops.all(known)):
        low, high = int(ops.min(indices)), int(ops.max(indices))
        raise ValueError(
            f"Expected indices from 0 to {count - 1}. Received: indices from {low} to {high}"
        )
    return inside, None


def known_or_nan(codes, known):
    """Codes, NaN where `checked_indices` knew no index.

    Args:
        codes: (..., d).
        known: (...) bool, or None.

    Returns:
        (..., d).

    Example:

    >>> np.array(known_or_nan(np.ones((2, 1)), np.array([True, False]))).tolist()
    [[1.0], [nan]]
    """
    return codes if known is None else ops.where(known[..., None], codes, float("nan"))


def visible_positions(mask, shape):
    """A mask as one number for each vector.

    Args:
        mask: bool, of the first axes of the vectors, such as (b, n); or None: all are visible.
        shape: sizes of the axes in front of the channels, which may be tensors.

    Returns:
        float32 of that shape, 1 where a position is visible, else 0.

    Example:

    >>> np.array(visible_positions(np.array([True, False]), (2, 3))).tolist()
    [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """
    if mask is None:
        return ops.ones(shape, "float32")
    mask = ops.cast(mask, "float32")
    mask = ops.reshape(mask, (*ops.shape(mask), *[1] * (len(shape) - len(mask.shape))))
    return ops.broadcast_to(mask, shape)


def zero_hidden(vectors, mask):
    """Vectors that are 0 where a mask hides, so that a NaN there spoils neither sums nor gradients.

    Args:
        vectors: (..., d).
        mask: bool, of the first axes of the vectors, such as (b, n), or None.

    Returns:
        (..., d).

    Example:

    >>> np.array(zero_hidden(np.float32([[1], [np.nan]]), np.array([True, False]))).tolist()
    [[1.0], [0.0]]
    """
    if mask is None:
        return vectors
    visible = ops.cast(mask, "bool")
    for _ in range(len(vectors.shape) - len(visible.shape)):
        visible = visible[..., None]
    return ops.where(visible, vectors, ops.zeros_like(vectors))


def marked_indices(indices, mask):
    """Indices that are -1 where a mask hides.

    Args:
        indices: int32 of any shape.
        mask: bool, of its first axes, or None.

    Returns:
        int32 of that shape.

    Example:

    >>> np.array(marked_indices(np.array([3, 4]), np.array([True, False]))).tolist()
    [3, -1]
    """
    if mask is None:
        return indices
    return ops.where(visible_positions(mask, ops.shape(indices)) > 0, indices, -1)


def code_numbers(codes):
    """How many codes there are, as a setting.

    Args:
        codes: int, or a list of ints, one for each stage of a quantiser.

    Returns:
        int or list of int.

    Raises:
        ValueError: for anything else, below 1, and an empty list.

    Example:

    >>> code_numbers((8, 4))
    [8, 4]
    """
    if not isinstance(codes, list | tuple):
        return whole("codes", codes)
    if not codes:
        raise ValueError(f"Expected the number of codes of at least one stage. Received: {codes=}")
    return [whole("codes", each) for each in codes]


def code_counts(indices, codes, weights=None):
    """How often each code occurs.

    Args:
        indices: (...) integers, or floats that are some; of stages (..., stages). Those that are no
            code, such as -1 of what a mask hides, are left out.
        codes: int, or a list of ints, of each stage.
        weights: numbers, of the first axes of the indices, what each counts; None: 1.

    Returns:
        List of a tensor (codes,) float32 for each stage, or for the only one.

    Raises:
        ValueError: for another number of stages.

    Example:

    >>> np.array(code_counts([2, 0, 2, -1], 3)).tolist()
    [[1.0, 0.0, 2.0]]
    """
    indices = ops.cast(indices, "int32")
    if not isinstance(codes, list | tuple):
        indices, codes = indices[..., None], [codes]
    if not indices.shape or indices.shape[-1] != len(codes):
        raise ValueError(
            f"Expected an index for each stage, (..., {len(codes)}). "
            f"Received: indices.shape={tuple(indices.shape)}, {codes=}"
        )

    def counts(index, size):
        known = ops.logical_and(index >= 0, index < size)
        weight = ops.where(known, visible_positions(weights, ops.shape(index)), 0.0)
        index = ops.where(known, index, 0)
        return ops.segment_sum(ops.reshape(weight, (-1,)), ops.reshape(index, (-1,)), size)

    return [counts(indices[..., i], size) for i, size in enumerate(codes)]


def code_usage(counts):
    """The share of codes that occurred, the mean over stages.

    Args:
        counts: list of (codes,) float32, as `code_counts` gives them.

    Returns:
        float32 scalar.

    Example:

    >>> float(code_usage([np.float32([3, 0, 0, 1])]))
    0.5
    """
    return sum(ops.mean(ops.cast(each > 0, "float32")) for each in counts) / len(counts)


def code_perplexity(counts):
    """exp of the entropy of the codes, the mean over stages: how many would be as even.

    Args:
        counts: list of (codes,) float32, as `code_counts` gives them.

    Returns:
        float32 scalar, 1 of no counts.

    Example:

    >>> round(float(code_perplexity([np.float32([7, 7, 7, 0])])), 4)
    3.0
    """

    def perplexity(each):
        total = ops.sum(each)
        shares = each / ops.where(total > 0, total, 1.0)
        return ops.exp(-ops.sum(shares * ops.log(ops.maximum(shares, 1e-30))))

    return sum(map(perplexity, counts)) / len(counts)


def outputs_of(codes, indices, loss, return_indices, return_loss):
    """What a quantiser gives: codes, and as the next ones of a tuple what was asked for.

    Args:
        codes: tensor.
        indices: tensor.
        loss: scalar.
        return_indices: bool.
        return_loss: bool.

    Returns:
        The codes, or a tuple of two or three.

    Example:

    >>> outputs_of("codes", "indices", 0.0, return_indices=True, return_loss=False)
    ('codes', 'indices')
    """
    found = (codes, *[indices] * bool(return_indices), *[loss] * bool(return_loss))
    return found if len(found) > 1 else codes


def specs_of(shape, places, return_indices, return_loss):
    """What `outputs_of` will give, of codes (*shape) and indices (*places): `keras.KerasTensor`s.

    Args:
        shape: tuple.
        places: tuple.
        return_indices: bool.
        return_loss: bool.

    Returns:
        A spec, or a tuple of two or three.

    Example:

    >>> specs_of((None, 3), (None,), return_indices=False, return_loss=False).dtype
    'float32'
    """
    specs = [(shape, "float32"), (places, "int32"), ((), "float32")]
    return outputs_of(*starmap(keras.KerasTensor, specs), return_indices, return_loss)


GRADIENTS = {"straight_through": straight_through, "rotation": rotation_trick}
"""Name -> function of a code and a vector that gives the code, with a gradient to the vector."""
