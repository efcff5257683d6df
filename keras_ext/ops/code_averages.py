"""A codebook that follows the vectors it stands for: averages of sums and of counts."""

import numpy as np
from keras import ops

from keras_ext.ops.k_means import sums_by_code
from keras_ext.ops.replicas import sum_over_replicas

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


def updated_averages(sums, counts, vectors, indices, visible, decay):
    """The averages after one more batch, that of all replicas together, for each head its own.

        sum_c = decay sum_c + (1 - decay) sum_{j: z_j = c} x_j
        count_c = decay count_c + (1 - decay) |{j: z_j = c}|

    In float32 whatever comes in: bfloat16 cannot count beyond 256.

    Args:
        sums: float32 (h, codes, d).
        counts: float32 (h, codes).
        vectors: (b, h, n, d).
        indices: int32 (b, h, n), the code of each vector.
        visible: bool (b, n); other vectors are not counted.
        decay: float.

    Returns:
        The new sums and counts.
    """
    heads, codes, size = sums.shape
    rows = ops.reshape(ops.stop_gradient(ops.cast(vectors, "float32")), (-1, size))
    weights = ops.broadcast_to(ops.cast(visible, "float32")[:, None, :], ops.shape(indices))
    places = ops.reshape(indices + head_starts(heads, codes), (-1,))
    found = sums_by_code(rows, ops.reshape(weights, (-1,)), places, heads * codes)
    new_counts, new_sums = sum_over_replicas(list(found))
    new_counts = ops.reshape(new_counts, (heads, codes))
    new_sums = ops.reshape(new_sums, (heads, codes, size))
    return decay * sums + (1 - decay) * new_sums, decay * counts + (1 - decay) * new_counts


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
