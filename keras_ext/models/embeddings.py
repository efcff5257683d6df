"""What an encoder makes of its inputs before the first block."""

import keras

from keras_ext.layers.position_embedding import PositionEmbedding


def token_embedding(rows, width, initializer, policy, tied):
    """The layer of the token embeddings.

    Args:
        rows: int, number of ids.
        width: int, length of a vector.
        initializer: of the table.
        policy: dtype policy of the layer.
        tied: bool, whether it is called in reverse, too, for scores of all ids.
    """
    arguments = {"embeddings_initializer": initializer, "dtype": policy, "name": "Embedding-Token"}
    if not tied:
        return keras.layers.Embedding(rows, width, **arguments)
    # Without its `reverse_dtype` the way back would be computed in float32.
    return keras.layers.ReversibleEmbedding(
        rows, width, reverse_dtype=policy.compute_dtype, **arguments
    )


def position_embedding(length, hierarchical, initializer, policy):
    """The layer that adds a vector of each position.

    Args:
        length: int, rows of the table.
        hierarchical: float in (0, 1) for more positions than rows (`PositionEmbedding`), or None.
        initializer: of the table.
        policy: dtype policy of the layer.
    """
    return PositionEmbedding(
        length, initializer, hierarchical, dtype=policy, name="Embedding-Position"
    )


def embed(inputs, tokens, num_segments, width, residual, positions=None):
    """What enters the first block of an encoder.

        x = dropout(norm(token embedding + segment embedding + position embedding)) W + b

    W and b only where the embeddings have another width than the blocks.

    Args:
        inputs: dict of the encoder's inputs.
        tokens: layer, as of `token_embedding`.
        num_segments: int, number of segment ids; 0: none.
        width: int, that of the blocks.
        residual: `Residual` of the encoder.
        positions: layer, as of `position_embedding`; None: nothing is added.

    Returns:
        (b, n, width).
    """
    policy = residual.policy
    x = tokens(inputs["token_ids"])
    x = add_segments(x, inputs, num_segments, residual.initializer(), policy)
    if positions is not None:
        x = positions(x, positions=inputs.get("position_ids"))
    x = residual.first_norm(x)
    x = keras.layers.Dropout(residual.dropout, dtype=policy, name="Embedding-Dropout")(x)
    return widen(x, width, residual.initializer(), policy)


def add_segments(x, inputs, num_segments, initializer, policy):
    """`x` plus the embeddings of the segments, where there are any.

    Args:
        x: (b, n, d) tensor of the graph.
        inputs: dict of the encoder's inputs.
        num_segments: int, number of segment ids; 0: none.
        initializer: of the table.
        policy: dtype policy of the layers.

    Returns:
        (b, n, d).
    """
    if not num_segments:
        return x
    embedding = keras.layers.Embedding(
        num_segments,
        x.shape[-1],
        embeddings_initializer=initializer,
        dtype=policy,
        name="Embedding-Segment",
    )
    add = keras.layers.Add(dtype=policy, name="Embedding-Token-Segment")
    return add([x, embedding(inputs["segment_ids"])])


def widen(x, width, initializer, policy, use_bias=True):
    """`x`, projected to `width` where the embeddings have another (factorised embeddings).

    Args:
        x: (b, n, embedding_dim) tensor of the graph.
        width: int.
        initializer: of the kernel.
        policy: dtype policy of the layer.
        use_bias: bool, whether to add a bias.

    Returns:
        (b, n, width).
    """
    if x.shape[-1] == width:
        return x
    dense = keras.layers.Dense(
        width,
        use_bias=use_bias,
        kernel_initializer=initializer,
        dtype=policy,
        name="Embedding-Mapping",
    )
    return dense(x)
