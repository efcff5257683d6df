import keras
from keras import ops

from keras_ext.ops.near_rectangle import near_rectangle
from keras_ext.ops.settings import one_of, whole


@keras.saving.register_keras_serializable(package="keras_ext")
class ComposedEmbedding(keras.layers.Layer):
    """Embeds a vocabulary in a + b + c rows, where an embedding of its own needs a b + c.

    The first c ids have a row each; the others lie on a rectangle of a rows and b columns, and each
    is composed of the vectors of its row and its column:

        embedding[i] = residual[i]                        for i < c
        embedding[i] = row[(i - c) // b] o column[(i - c) mod b]    otherwise

    where o adds, multiplies element by element, or concatenates, and a + b + c is the least there
    is for `input_dim`: 21,128 ids need 291 rows, 50,257 need 458. Ids are best sorted by frequency:
    the most frequent ones then have rows of their own.

    Args:
        input_dim: int, number of ids.
        output_dim: int, width d; even for "concat".
        combine: "add", "multiply" or "concat". Defaults to "add".
        embeddings_initializer: initializer of an embedding. The parts are started so that what they
            compose has its variance: those added are divided by the root of 2, and the columns that
            rows are multiplied with are signs. Defaults to "uniform".
        mask_zero: bool. Whether id 0 is padding, and the mask of the others is handed on. Defaults
            to False.

    Call arguments:
        inputs: integers (...,), from 0 to `input_dim` - 1. Beyond them it does what
            `keras.layers.Embedding` does on the backend.

    Returns:
        (..., d) in the compute dtype.

    Raises:
        ValueError: for an `input_dim` below 1, an unknown `combine`, an odd `output_dim` for
            "concat".

    Example:

    >>> import numpy as np
    >>> layer = ComposedEmbedding(50257, 64)
    >>> tuple(layer(np.array([[0, 7, 50256]])).shape), layer.count_params() // 64
    ((1, 3, 64), 458)

    `table()` has all embeddings, for the logits of a language model: `h @ table.T`.

    Source: Jianlin Su, how to split N = ab + c so that a + b + c is least, 2023,
    https://kexue.fm/archives/9775
    """

    def __init__(
        self,
        input_dim,
        output_dim,
        combine="add",
        embeddings_initializer="uniform",
        mask_zero=False,
        **kwargs,
    ):
        # Parts are combined before they are rounded.
        super().__init__(autocast=False, **kwargs)
        self.rows, self.columns, self.residual_ids = near_rectangle(input_dim)
        self.input_dim = whole("input_dim", input_dim)
        self.output_dim = whole("output_dim", output_dim)
        self.combine = one_of("combine", combine, ("add", "multiply", "concat"))
        if combine == "concat" and output_dim % 2:
            raise ValueError(
                "The width must be even where halves are concatenated. "
                f"Received: {output_dim=}, {combine=}"
            )
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.mask_zero = mask_zero
        self.supports_masking = mask_zero

    def build(self, input_shape=None):
        width = self.output_dim // 2 if self.combine == "concat" else self.output_dim
        self.parts = self.add_weight(
            shape=(self.rows + self.columns, width),
            initializer=self._start_of_parts,
            autocast=False,
            name="part_embeddings",
        )
        self.residual = None
        if self.residual_ids:
            self.residual = self.add_weight(
                shape=(self.residual_ids, self.output_dim),
                initializer=self.embeddings_initializer,
                autocast=False,
                name="residual_embeddings",
            )

    def _start_of_parts(self, shape, dtype):
        # All parts in one draw: an initializer with a seed gives two tables of a shape equal values.
        parts = self.embeddings_initializer(shape, dtype=dtype)
        if self.combine == "add":
            return parts / 2**0.5
        if self.combine == "multiply":
            signs = ops.where(parts[self.rows :] < 0, -1.0, 1.0)
            return ops.concatenate([parts[: self.rows], ops.cast(signs, dtype)], 0)
        return parts

    def call(self, inputs):
        ids = ops.cast(inputs, "int32")
        ids = ops.where(ids < 0, ids + self.input_dim, ids)  # as Keras counts from the end
        apart = ops.logical_and(ids >= 0, ids < self.residual_ids)
        place = ops.where(apart, 0, ids - self.residual_ids)
        # An id that there is not has a row that there is not.
        row = ops.take(self.parts[: self.rows], place // self.columns, axis=0)
        column = ops.take(self.parts[self.rows :], place % self.columns, axis=0)
        if self.combine == "add":
            vectors = row + column
        elif self.combine == "multiply":
            vectors = row * column
        else:
            vectors = ops.concatenate([row, column], -1)
        if self.residual is not None:
            own = ops.take(self.residual, ops.where(apart, ids, 0), axis=0)
            vectors = ops.where(ops.expand_dims(apart, -1), own, vectors)
        return ops.cast(vectors, self.compute_dtype)

    def table(self):
        """All embeddings (`input_dim`, d), in the compute dtype."""
        return self(ops.arange(self.input_dim, dtype="int32"))

    def compute_mask(self, inputs, mask=None):
        return ops.not_equal(inputs, 0) if self.mask_zero else None

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.output_dim)

    def get_config(self):
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "combine": self.combine,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "mask_zero": self.mask_zero,
        }
