import keras
import numpy as np


def whitening(vectors, units=None, name="whitening"):
    """A dense layer that turns vectors like these into uncorrelated ones of variance 1.

        output = (x - mean) W,   W = U diag(1 / sqrt(lambda)),   cov = U diag(lambda) U^T

    mean and cov are those of `vectors`, cov with 1 / n. U are its eigenvectors by falling
    eigenvalue, so that the first `units` outputs are the directions of most variance. It needs no
    labels. The paper finds that cosines of sentence vectors from a language model as it is follow
    the meaning better after it; whether they do for another model is to be measured.

    A direction in which the vectors do not vary, an eigenvalue below 1e-9 of the largest, has no
    scale: its output is 0. There are such directions whenever n <= d. Eigenvalues of few vectors
    are noise: take n many times d, or few units.

    Args:
        vectors: array (n, d), n at least 2, such as a corpus encoded without normalisation.
        units: int, the width of the output. None: d.
        name: str, of the layer.

    Returns:
        A built `keras.layers.Dense` in float32 from d to `units`: kernel W, bias -mean W. It can be
        trained on, saved, and stand behind a model as any other.

    Raises:
        ValueError: If there are less than two vectors, a number is not finite, all vectors are
            equal, or there are less directions of variance than `units`.

    Example:

    >>> import numpy as np
    >>> vectors = np.random.default_rng(0).normal(3.0, [1.0, 9.0], (100, 2))
    >>> white = np.array(whitening(vectors)(vectors))
    >>> np.allclose(np.cov(white.T, bias=True), np.eye(2), atol=1e-5)
    True

    Source: Jianlin Su, Jiarun Cao, Weijie Liu, Yangyiwen Ou, Whitening Sentence Representations for
    Better Semantics and Faster Retrieval, 2021, https://arxiv.org/abs/2103.15316
    """
    vectors = np.asarray(vectors, "float64")
    if vectors.ndim != 2 or len(vectors) < 2:
        raise ValueError(
            f"Expected at least two vectors, (n, d). Received: vectors.shape={vectors.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if bad.size:
        raise ValueError(f"Vectors must be finite. Received: vectors[{bad[0]}]={vectors[bad[0]]}")
    size = vectors.shape[1]
    mean = vectors.mean(axis=0)
    centred = vectors - mean
    variances, directions = np.linalg.eigh(centred.T @ centred / len(vectors))
    variances, directions = variances[::-1], directions[:, ::-1]  # eigh sorts them rising
    varies = variances > 1e-9 * max(variances[0], 0.0)
    rank = int(varies.sum())
    if not rank or (units is not None and not 1 <= units <= rank):
        raise ValueError(
            f"The vectors vary in {rank} of {size} directions, and there are no more to keep. "
            f"Received: {units=}, vectors.shape={vectors.shape}"
        )
    units = units or size
    scales = np.where(varies, 1.0 / np.sqrt(np.where(varies, variances, 1.0)), 0.0)
    kernel = (directions * scales)[:, :units]
    layer = keras.layers.Dense(units, dtype="float32", name=name)
    layer.build((None, size))
    layer.set_weights([kernel, -mean @ kernel])
    return layer
