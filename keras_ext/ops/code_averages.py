"""A codebook that follows the vectors it stands for: averages of sums and of counts."""

import numpy as np
from keras import ops

from keras_ext.ops.replicas import gather_over_replicas

LEAST_COUNT = 0.01


def averaged_codebook(sums, counts):
    """The codes e_c = sum_c / max(count_c, 0.01).

    Args:
        sums: (..., codes, d).
        counts: (..., codes).

    Returns:
        (..., codes, d).
    """
    return sums / ops.expand_dims(ops.maximum(counts, LEAST_COUNT), -1)


def updated_averages(sums, counts, vectors, indices, visible, momentum):
    """The averages after one more batch, that of all replicas together, for each head its own.

        sum_c = momentum sum_c + (1 - momentum) sum_{j: z_j = c} x_j
        count_c = momentum count_c + (1 - momentum) |{j: z_j = c}|

    In float32 whatever comes in: bfloat16 cannot count beyond 256.

    Args:
        sums: float32 (h, codes, d).
        counts: float32 (h, codes).
        vectors: (b, h, n, d).
        indices: int32 (b, h, n), the code of each vector.
        visible: bool (b, n); other vectors are not counted.
        momentum: float.

    Returns:
        The new sums and counts.
    """
    heads, codes, size = sums.shape
    tokens = ops.cast(visible, "float32")[:, None, :, None]
    vectors = ops.stop_gradient(ops.cast(vectors, "float32")) * tokens
    rows = ops.concatenate((vectors, ops.broadcast_to(tokens, ops.shape(vectors[..., :1]))), -1)
    places = indices + head_starts(heads, codes)
    rows = ops.reshape(rows, (-1, size + 1))
    found = ops.segment_sum(rows, ops.reshape(places, (-1,)), num_segments=heads * codes)
    found = ops.sum(gather_over_replicas(ops.expand_dims(found, 0)), 0)
    found = ops.reshape(found, (heads, codes, size + 1)) * (1.0 - momentum)
    return momentum * sums + found[..., :-1], momentum * counts + found[..., -1]


def code_vectors(codebook, indices):
    """The codes of indices, for each head from its own codebook.

    Args:
        codebook: (h, codes, d).
        indices: int32 (b, h, n).

    Returns:
        (b, h, n, d).
    """
    heads, codes, size = codebook.shape
    return ops.take(
        ops.reshape(codebook, (heads * codes, size)), indices + head_starts(heads, codes), axis=0
    )


def head_starts(heads, codes):
    """Where the codes of each head begin in the codebooks of all, int32 (h, 1)."""
    return ops.expand_dims(ops.arange(heads, dtype="int32") * codes, -1)


def sphere(shape, dtype=None):
    """Random points as normalised keys lie: of mean 0 and of length d^(1/4), an initializer.

    The same ones for every layer, backend and run: the projections before them are random.
    """
    points = np.random.default_rng(0).normal(size=shape)
    points -= points.mean(-1, keepdims=True)
    points /= points.std(-1, keepdims=True)
    return ops.convert_to_tensor(points * shape[-1] ** -0.25, dtype)
