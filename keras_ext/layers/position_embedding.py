import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_ext")
class PositionEmbedding(keras.layers.Layer):
    """Adds a learned vector for each position.

        output[i] = input[i] + table[i]

    Args:
        input_dim: int, number of positions in the table, the length of the longest input.
        embeddings_initializer: initializer of the table. Defaults to "uniform".

    Call arguments:
        inputs: (b, n, d), n at most `input_dim`.

    Returns:
        (b, n, d) in the compute dtype.

    Raises:
        ValueError: when called on more than `input_dim` positions. Where a compiled function
            leaves the length open, the backend raises its own error about shapes instead.

    Example:

    >>> import numpy as np
    >>> layer = PositionEmbedding(8)
    >>> tuple(layer(np.zeros((2, 5, 4), "float32")).shape)
    (2, 5, 4)
    """

    def __init__(self, input_dim, embeddings_initializer="uniform", **kwargs):
        super().__init__(**kwargs)
        self.input_dim = input_dim
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.supports_masking = True

    def build(self, input_shape):
        self.embeddings = self.add_weight(
            shape=(self.input_dim, input_shape[-1]),
            initializer=self.embeddings_initializer,
            name="embeddings",
        )

    def call(self, inputs):
        self._check_length(inputs.shape)
        return inputs + ops.convert_to_tensor(self.embeddings)[: ops.shape(inputs)[1]]

    def _check_length(self, shape):
        if shape[1] is not None and shape[1] > self.input_dim:
            raise ValueError(
                f"The input is longer than the table of {self.input_dim} positions; cut it into "
                f"windows. Received: length={shape[1]}"
            )

    def compute_output_shape(self, input_shape):
        self._check_length(input_shape)
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
        }
