import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="keras_ext")
class PositionEmbedding(keras.layers.Layer):
    """Adds a learned vector for each position.

        output[i] = input[i] + table[i]

    With `hierarchical`, a table of m rows serves m^2 positions. With alpha = `hierarchical` and
    u[i] = (table[i] - alpha table[0]) / (1 - alpha), whose first m positions are the table again:

        output[i] = input[i] + alpha u[i // m] + (1 - alpha) u[i mod m]

    A position between two whole ones gets the vector on the line between theirs.

    Args:
        input_dim: int, number of positions in the table: the length of the longest input, or its
            root with `hierarchical`.
        embeddings_initializer: initializer of the table. Defaults to "uniform".
        hierarchical: float in (0, 1), the weight alpha of the coarse position. bert4keras takes
            0.4. None: positions end with the table. Defaults to None.

    Call arguments:
        inputs: (b, n, d), n at most `input_dim` (squared with `hierarchical`).
        positions: (n,) or (b, n), integers or floats from 0 to the last position. None: 0, 1, ...,
            n - 1. Those outside count as the first or the last position.

    Returns:
        (b, n, d) in the compute dtype.

    Raises:
        ValueError: for `hierarchical` outside (0, 1); when called without positions on a longer
            input than there are. Where a compiled function leaves the length open, the backend
            raises its own error about shapes instead; XLA raises none with `hierarchical`.

    Example:

    >>> import numpy as np
    >>> layer = PositionEmbedding(8)
    >>> tuple(layer(np.zeros((2, 5, 4), "float32")).shape)
    (2, 5, 4)

    Source of the hierarchical form: Jianlin Su, BERT for very long texts by hierarchical
    decomposition of positions, 2020, https://kexue.fm/archives/7947
    """

    def __init__(self, input_dim, embeddings_initializer="uniform", hierarchical=None, **kwargs):
        # Positions are not rounded to the compute dtype: bfloat16 has no 257.
        super().__init__(autocast=False, **kwargs)
        if hierarchical is not None and not 0 < hierarchical < 1:
            raise ValueError(
                "The weight of the coarse position must lie between 0 and 1. "
                f"Received: {hierarchical=}"
            )
        self.input_dim = input_dim
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.hierarchical = hierarchical
        self.supports_masking = True

    def build(self, input_shape):
        # Sums of rows are taken before they are rounded.
        self.embeddings = self.add_weight(
            shape=(self.input_dim, input_shape[-1]),
            initializer=self.embeddings_initializer,
            autocast=False,
            name="embeddings",
        )

    def call(self, inputs, positions=None):
        inputs = ops.cast(inputs, self.compute_dtype)
        if positions is not None:
            return inputs + ops.cast(self._vectors(positions), self.compute_dtype)
        self._check_length(inputs.shape)
        length = ops.shape(inputs)[1]
        if not self.hierarchical:
            return inputs + ops.cast(self.embeddings, self.compute_dtype)[:length]
        vectors = self._rows(ops.arange(length, dtype="int32"))
        return inputs + ops.cast(vectors, self.compute_dtype)

    def _vectors(self, positions):
        """The vectors of positions, float32 (..., n, d)."""
        positions = ops.convert_to_tensor(positions)
        if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(positions.dtype)):
            # Beyond a table backends differ: an error, NaN, the last row.
            return self._rows(ops.clip(ops.cast(positions, "int32"), 0, self._longest - 1))
        positions = ops.clip(ops.cast(positions, "float32"), 0, self._longest - 1)
        lower = ops.floor(positions)
        fraction = ops.expand_dims(positions - lower, -1)
        lower = ops.cast(lower, "int32")
        upper = ops.minimum(lower + 1, self._longest - 1)
        lower, upper = self._rows(lower), self._rows(upper)
        return lower + fraction * (upper - lower)

    def _rows(self, positions):
        """The vectors of whole positions, float32 (..., n, d)."""
        table = ops.cast(self.embeddings, "float32")
        if not self.hierarchical:
            return ops.take(table, positions, axis=0)
        alpha = self.hierarchical
        table = (table - alpha * table[:1]) / (1 - alpha)
        coarse = ops.take(table, ops.floor_divide(positions, self.input_dim), axis=0)
        fine = ops.take(table, ops.mod(positions, self.input_dim), axis=0)
        return alpha * coarse + (1 - alpha) * fine

    @property
    def _longest(self):
        return self.input_dim**2 if self.hierarchical else self.input_dim

    def _check_length(self, shape):
        if shape[1] is not None and shape[1] > self._longest:
            raise ValueError(
                f"The input is longer than the table of {self._longest} positions; cut it into "
                f"windows. Received: length={shape[1]}"
            )

    def compute_output_shape(self, input_shape, positions_shape=None):
        if positions_shape is None:
            self._check_length(input_shape)
        return tuple(input_shape)

    def compute_output_spec(self, inputs, positions=None):
        shape = None if positions is None else np.shape(positions)  # that of a list, too
        return keras.KerasTensor(self.compute_output_shape(inputs.shape, shape), self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "hierarchical": self.hierarchical,
        }
