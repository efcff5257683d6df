import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="keras_ext")
class RelativePositionEmbedding(keras.layers.Layer):
    """A fixed vector for each distance between two tokens of a sequence, as in NEZHA.

        output[j, k] = table[clip(k - j, -r, r) + r],  r = (input_dim - 1) // 2
        table[p, 2 i] = sin(p * 10000^(-2 i / output_dim)),  table[p, 2 i + 1] = cos(...)

    The table is a weight, so that a checkpoint may hold another one, but training leaves it as it
    is. All sequences of a batch share the output, which has no batch axis.

    Args:
        input_dim: int, rows of the table. It tells distances up to r apart; NEZHA has 129 rows.
        output_dim: int, even: length of a vector.

    Call arguments:
        inputs: (b, n, d), read for its length only.

    Returns:
        (n, n, output_dim) in the compute dtype: row j the query, column k the key.

    Raises:
        ValueError: for an odd `output_dim`, or sizes below 1.

    Example:

    >>> import numpy as np
    >>> layer = RelativePositionEmbedding(input_dim=9, output_dim=4)
    >>> tuple(layer(np.zeros((2, 5, 8), "float32")).shape)
    (5, 5, 4)

    Source: Junqiu Wei et al., NEZHA: Neural Contextualized Representation for Chinese Language
    Understanding, 2019, https://arxiv.org/abs/1909.00204
    """

    def __init__(self, input_dim, output_dim, **kwargs):
        super().__init__(**kwargs)
        if input_dim < 1 or output_dim < 1:
            raise ValueError(f"Sizes must be positive. Received: {input_dim=}, {output_dim=}")
        if output_dim % 2:
            raise ValueError(
                f"Sine and cosine come in pairs, output_dim must be even. Received: {output_dim=}"
            )
        self.input_dim = input_dim
        self.output_dim = output_dim
        self.supports_masking = True

    def build(self, input_shape):
        self.embeddings = self.add_weight(
            shape=(self.input_dim, self.output_dim),
            initializer=sinusoidal_table,
            trainable=False,
            name="embeddings",
        )

    def call(self, inputs):
        positions = ops.arange(ops.shape(inputs)[1])
        distances = ops.expand_dims(positions, 0) - ops.expand_dims(positions, 1)  # (n, n)
        reach = (self.input_dim - 1) // 2
        rows = ops.clip(distances, -reach, reach) + reach
        return ops.take(self.embeddings, rows, axis=0)

    def compute_mask(self, inputs, mask=None):
        # The output has no batch axis that a mask could belong to.
        return None

    def compute_output_shape(self, input_shape):
        return (input_shape[1], input_shape[1], self.output_dim)

    def get_config(self):
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
        }


def sinusoidal_table(shape, dtype=None):
    """The table of sines and cosines, (rows, channels), as an initializer."""
    rows, channels = shape
    frequencies = 10000.0 ** (-np.arange(0, channels, 2) / channels)
    angles = np.outer(np.arange(rows), frequencies)
    table = np.stack([np.sin(angles), np.cos(angles)], axis=-1)  # (rows, channels / 2, 2)
    return ops.convert_to_tensor(table.reshape(shape), dtype)
