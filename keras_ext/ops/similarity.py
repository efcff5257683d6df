"""How alike two vectors are: the scores that sentence vectors are trained and compared by."""

from keras import ops


def unit_vectors(vectors):
    """Vectors of length 1 in float32, for vectors of any finite length.

        x / |x|,  and 0 where x = 0

    The sum of squares is taken of x divided by its largest component, so that it neither overflows
    nor vanishes: 1e30 and 1e-30 are lengths like any other. A vector of zeros has no direction; it
    gives 0, in value and in gradient, where the usual epsilon gives a gradient of a million.

    Args:
        vectors: tensor (..., d) of a floating point dtype.

    Returns:
        float32 tensor (..., d). NaN stays NaN.

    Example:

    >>> import numpy as np
    >>> np.array(unit_vectors(np.array([[3.0, 4.0], [0.0, 0.0]], "float32"))).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    vectors = ops.cast(vectors, "float32")
    largest = ops.stop_gradient(ops.max(ops.abs(vectors), axis=-1, keepdims=True))
    # A direction does not change with the length, so the divisor may be held constant.
    vectors = vectors / ops.where(largest == 0.0, 1.0, largest)
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)  # 0, or 1 to d
    inverse = ops.rsqrt(ops.where(squares == 0.0, 1.0, squares))
    return vectors * ops.where(squares == 0.0, 0.0, inverse)


def dot_scores(first, second):
    """Inner products of vectors, row by row, in float32.

        s = sum_i x_i y_i

    Args:
        first: tensor (..., d).
        second: tensor of the same shape.

    Returns:
        float32 tensor, the shape of the arguments without the last axis.

    Example:

    >>> import numpy as np
    >>> float(dot_scores(np.array([1.0, 2.0]), np.array([3.0, 4.0])))
    11.0
    """
    return ops.sum(ops.cast(first, "float32") * ops.cast(second, "float32"), axis=-1)


def cosine_scores(first, second):
    """Cosines of the angles between vectors, row by row, in float32; 0 for a vector of zeros.

        s = sum_i x_i y_i / (|x| |y|)

    Args:
        first: tensor (..., d).
        second: tensor of the same shape.

    Returns:
        float32 tensor in [-1, 1], the shape of the arguments without the last axis.

    Example:

    >>> import numpy as np
    >>> round(float(cosine_scores(np.array([1.0, 0.0]), np.array([1.0, 1.0]))), 4)
    0.7071
    """
    return dot_scores(unit_vectors(first), unit_vectors(second))


def angle_scores(first, second):
    """The scores of AnglE, row by row, in float32; 0 for a vector of zeros.

    The halves of a vector are the real and the imaginary parts of a complex one, x = a + ib and
    y = c + id. The score is the absolute sum of all parts of the quotient of the two:

        s = |sum(a c + b d) + sum(b c - a d)| / (|x| |y|)

    Where the cosine is flat, near 1 and -1, this is not: the second sum is the sine between halves.

    Args:
        first: tensor (..., d), d even.
        second: tensor of the same shape.

    Returns:
        float32 tensor in [0, sqrt(2)], the shape of the arguments without the last axis.

    Raises:
        ValueError: if d is odd.

    Example:

    >>> import numpy as np
    >>> float(angle_scores(np.array([1.0, 0.0]), np.array([1.0, 0.0])))
    1.0

    Source: Xianming Li and Jing Li, AnglE-optimized Text Embeddings, 2023,
    https://arxiv.org/abs/2309.12871
    """
    size = ops.shape(first)[-1]
    if isinstance(size, int) and size % 2:
        raise ValueError(
            "The halves of a vector are its real and imaginary parts, so the dimension is even. "
            f"Received: {size} dimensions"
        )
    (real, imaginary), (to_real, to_imaginary) = (
        ops.split(unit_vectors(x), 2, axis=-1) for x in (first, second)
    )
    parts = real * (to_real - to_imaginary) + imaginary * (to_imaginary + to_real)
    return ops.abs(ops.sum(parts, axis=-1))


SCORES = {"cosine": cosine_scores, "dot": dot_scores, "angle": angle_scores}


def score_function(score):
    """The function that a score's name stands for.

    Args:
        score: "cosine", "dot" or "angle"; or a function of two tensors (..., d) that gives (...),
            which is returned as it is.

    Returns:
        A function of two tensors.

    Raises:
        ValueError: for another name.

    Example:

    >>> score_function("dot").__name__
    'dot_scores'
    """
    if callable(score):
        return score
    if score not in SCORES:
        raise ValueError(
            f"A score is one of {sorted(SCORES)}, or a function of two tensors of vectors. "
            f"Received: {score=}"
        )
    return SCORES[score]
