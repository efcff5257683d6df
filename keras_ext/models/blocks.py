"""The parts that the graphs of the encoders have in common."""

import keras


def encoder_inputs():
    """The inputs of every encoder, by name.

    Returns:
        Dict of `keras.Input`s: `token_ids` and `segment_ids` (b, n) int32, `padding_mask`
        (b, n) bool, true = token.
    """
    dtypes = {"token_ids": "int32", "segment_ids": "int32", "padding_mask": "bool"}
    return {name: keras.Input((None,), dtype=dtype, name=name) for name, dtype in dtypes.items()}


def check_heads(hidden_dim, num_heads):
    """Raises ValueError unless `num_heads` divides `hidden_dim`."""
    if num_heads < 1 or hidden_dim % num_heads:
        raise ValueError(
            f"The number of heads must divide the width. Received: {hidden_dim=}, {num_heads=}"
        )


def post_norm(x, layer, dropout, epsilon, **call_arguments):
    """`LN(x + dropout(layer(x)))`, as in the original transformer.

    Args:
        x: (b, n, d) tensor of the graph.
        layer: layer, (b, n, d) to (b, n, d); its name and dtype policy serve the others.
        dropout: float in [0, 1).
        epsilon: float, that of the normalisation.
        **call_arguments: passed to `layer`.

    Returns:
        (b, n, d).
    """
    policy, name = layer.dtype_policy, layer.name
    branch = layer(x, **call_arguments)
    branch = keras.layers.Dropout(dropout, dtype=policy, name=f"{name}-Dropout")(branch)
    x = keras.layers.Add(dtype=policy, name=f"{name}-Add")([x, branch])
    return keras.layers.LayerNormalization(epsilon=epsilon, dtype=policy, name=f"{name}-Norm")(x)


def pre_norm(x, layer, dropout, epsilon, **call_arguments):
    """`x + dropout(layer(LN(x)))`, which trains without a warm-up.

    Args:
        x: (b, n, d) tensor of the graph.
        layer: layer, (b, n, d) to (b, n, d); its name and dtype policy serve the others.
        dropout: float in [0, 1).
        epsilon: float, that of the normalisation.
        **call_arguments: passed to `layer`.

    Returns:
        (b, n, d).
    """
    policy, name = layer.dtype_policy, layer.name
    norm = keras.layers.LayerNormalization(epsilon=epsilon, dtype=policy, name=f"{name}-Norm")
    branch = layer(norm(x), **call_arguments)
    branch = keras.layers.Dropout(dropout, dtype=policy, name=f"{name}-Dropout")(branch)
    return keras.layers.Add(dtype=policy, name=f"{name}-Add")([x, branch])


def pooled(x, initializer, policy):
    """The vector of the first token through a tanh layer, BERT's vector of the sentence.

    Args:
        x: (b, n, d) tensor of the graph.
        initializer: of the kernel.
        policy: dtype policy of the layer.

    Returns:
        (b, d).
    """
    dense = keras.layers.Dense(
        x.shape[-1],
        activation="tanh",
        kernel_initializer=initializer,
        dtype=policy,
        name="Pooler-Dense",
    )
    return dense(x[:, 0])
