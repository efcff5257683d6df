import keras
from keras import ops

MAX_BUCKETS = 2**20
DIGIT = 2**10


@keras.saving.register_keras_serializable(package="keras_ext")
class BigramEmbedding(keras.layers.Layer):
    """Embeds each token together with the one after it.

        row[i] = (multiplier * id[i] + id[i + 1]) mod buckets,  multiplier = round(0.618 buckets)
        output[i] = table[row[i]],  the last token is followed by 0

    For character models that are trained from scratch: in Chinese a pair of characters is often
    a word, and a table of pairs gives the model word vectors without a word segmenter and
    without a vocabulary of pairs. Pairs that fall into the same row share it; with ten rows for
    each pair that matters, that is harmless.

    The multiplier is near the golden section of `buckets`, so that pairs of small ids (frequent
    characters, in a vocabulary sorted by count) spread evenly. The arithmetic stays below 2^31
    in every step: all backends give the same rows, in int32.

    Args:
        buckets: int from 1 to 2^20, number of rows of the table.
        output_dim: int, width of the embedding.
        embeddings_initializer: initializer of the table. Defaults to "uniform".

    Call arguments:
        inputs: (b, n) int32 token ids.
        mask: (b, n) bool, true = token. A padded position counts as id 0, whatever it holds.

    Returns:
        (b, n, output_dim) in the compute dtype.

    Raises:
        ValueError: if `buckets` is out of range.

    Example:

    >>> import numpy as np
    >>> layer = BigramEmbedding(buckets=1000, output_dim=8)
    >>> vectors = layer(np.array([[5, 6, 5, 6]]))
    >>> tuple(vectors.shape)
    (1, 4, 8)
    >>> bool(np.array_equal(vectors[0, 0], vectors[0, 2]))
    True
    """

    def __init__(self, buckets, output_dim, embeddings_initializer="uniform", **kwargs):
        super().__init__(**kwargs)
        if not 1 <= buckets <= MAX_BUCKETS:
            raise ValueError(
                f"The number of buckets must lie between 1 and {MAX_BUCKETS}. Received: {buckets=}"
            )
        self.buckets = buckets
        self.output_dim = output_dim
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.embedding = keras.layers.Embedding(
            buckets,
            output_dim,
            embeddings_initializer=self.embeddings_initializer,
            dtype=self.dtype_policy,
            name="embedding",
        )
        self.supports_masking = True

    def build(self, input_shape):
        self.embedding.build(input_shape)

    def hash_pairs(self, token_ids):
        """The row of each pair of neighbours.

        Args:
            token_ids: (b, n) integers.

        Returns:
            (b, n) int32 in [0, buckets).
        """
        first = ops.mod(ops.cast(token_ids, "int32"), self.buckets)
        second = ops.pad(first[:, 1:], ((0, 0), (0, 1)))
        # The product of two rows does not fit int32. Multiply by one base-1024 digit at a time:
        # row * 1024 + row stays below 2^31.
        high, low = divmod(round(0.618 * self.buckets), DIGIT)
        product = ops.mod(first * high, self.buckets)
        product = ops.mod(product * DIGIT + ops.mod(first * low, self.buckets), self.buckets)
        return ops.mod(product + second, self.buckets)

    def call(self, inputs, mask=None):
        if mask is not None:
            inputs = ops.where(mask, inputs, 0)
        return self.embedding(self.hash_pairs(inputs))

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.output_dim)

    def get_config(self):
        return {
            **super().get_config(),
            "buckets": self.buckets,
            "output_dim": self.output_dim,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
        }
