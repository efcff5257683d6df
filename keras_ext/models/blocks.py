"""The parts that the graphs of the encoders have in common."""

import keras

from keras_ext import activations
from keras_ext.layers.attention_mask import AttentionMask


def encoder_inputs(num_segments=2, custom_position_ids=False):
    """The inputs of an encoder, by name.

    Args:
        num_segments: int; 0: there is no input `segment_ids`.
        custom_position_ids: bool, whether `position_ids` are an input, too.

    Returns:
        Dict of `keras.Input`s: `token_ids` and `segment_ids` (b, n) int32, `padding_mask` (b, n)
        bool, true = token, `position_ids` (b, n) float32: positions may be fractions.
    """
    dtypes = {"token_ids": "int32", "segment_ids": "int32", "padding_mask": "bool"}
    if not num_segments:
        del dtypes["segment_ids"]
    if custom_position_ids:
        # Keras casts to the dtype of an input without a word. As int32 fractions would be cut; the
        # integers below 2^24 are float32 numbers.
        dtypes["position_ids"] = "float32"
    return {name: keras.Input((None,), dtype=dtype, name=name) for name, dtype in dtypes.items()}


def check_heads(hidden_dim, num_heads, head_size=None):
    """The channels of a head: `head_size`, or the width divided by the number of heads.

    Raises:
        ValueError: if they do not divide the width.
    """
    if num_heads < 1 or (head_size is None and hidden_dim % num_heads):
        raise ValueError(
            f"The number of heads must divide the width. Received: {hidden_dim=}, {num_heads=}"
        )
    return hidden_dim // num_heads if head_size is None else head_size


def check_application(application, num_segments):
    """Raises ValueError unless the encoder can mask its attention so."""
    if application not in ("encoder", "lm", "unilm"):
        raise ValueError(
            f"Expected an application 'encoder', 'lm' or 'unilm'. Received: {application=}"
        )
    if application == "unilm" and not num_segments:
        raise ValueError(
            "UniLM tells source and target apart by their segments. "
            f"Received: {application=}, {num_segments=}"
        )


def attention_mask(inputs, application):
    """Which tokens see which, beside padding: None for an encoder.

    Args:
        inputs: dict of the encoder's inputs.
        application: "encoder", "lm" or "unilm".

    Returns:
        None, (1, n, n) or (b, n, n) bool.
    """
    if application == "encoder":
        return None
    name = {"lm": "Attention-LM-Mask", "unilm": "Attention-UniLM-Mask"}[application]
    ids = inputs["token_ids" if application == "lm" else "segment_ids"]
    return AttentionMask(application, name=name)(ids)


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


def post_norm(layer, dropout, norm, alpha=1.0):
    """The sub-block `norm(alpha x + dropout(layer(x)))`, as in the original transformer with 1.

    With another alpha the sum is float32 whatever the policy.

    Args:
        layer: layer, (b, n, d) to (b, n, d); its name and dtype policy serve the others.
        dropout: float in [0, 1).
        norm: function of a name and a dtype policy that gives the normalisation.
        alpha: float, that of DeepNorm. Defaults to 1.

    Returns:
        A function of x (b, n, d) and the call arguments of `layer`. Called again, it shares all
        layers.
    """
    # alpha, rounded to bfloat16, would be off by up to 0.2 %, the same way in every block.
    enlarged = alpha != 1.0
    drop, add, normalise = _parts(layer, dropout, norm, "float32" if enlarged else None)

    def block(x, **call_arguments):
        branch = drop(layer(x, **call_arguments))
        residual = alpha * keras.ops.cast(x, "float32") if enlarged else x
        return normalise(add([residual, branch]))

    return block


def pre_norm(layer, dropout, norm):
    """The sub-block `x + dropout(layer(norm(x)))`, which trains without a warm-up.

    Args and Returns as in `post_norm`.
    """
    drop, add, normalise = _parts(layer, dropout, norm)

    def block(x, **call_arguments):
        return add([x, drop(layer(normalise(x), **call_arguments))])

    return block


def _parts(layer, dropout, norm, sum_policy=None):
    policy, name = layer.dtype_policy, layer.name
    drop = keras.layers.Dropout(dropout, dtype=policy, name=f"{name}-Dropout")
    add = keras.layers.Add(dtype=sum_policy or policy, name=f"{name}-Add")
    return drop, add, norm(name=f"{name}-Norm", dtype=policy)


def keep_arguments(model, policy, trainable, **arguments):
    """Keeps the arguments of an encoder as its attributes and as what `kept_config` gives."""
    model.dtype_policy = policy
    model.trainable = trainable
    for name, value in arguments.items():
        setattr(model, name, value)
    model._argument_names = tuple(arguments)


def kept_config(model):
    """The config of an encoder: the arguments it was made with."""
    config = {name: getattr(model, name) for name in model._argument_names}
    return {
        **config,
        "activation": activations.serialize(model.activation),
        "dtype": keras.dtype_policies.serialize(model.dtype_policy),
        "name": model.name,
        "trainable": model.trainable,
    }
