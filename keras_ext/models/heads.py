"""The heads that pretraining puts on an encoder."""

import keras

from keras_ext.layers.scale_offset import ScaleOffset


def output_activation(name, given, default):
    """The last step of a head, in float32 whatever the policy.

    Args:
        name: name of the layer.
        given: True for `default`, or the name of an activation.
        default: name of an activation.

    Returns:
        Layer.
    """
    activation = default if given is True else given
    # Probabilities of a whole vocabulary would round to 0 in half precision.
    return keras.layers.Activation(activation, dtype="float32", name=name)


def dense(units, name, residual, activation=None, use_bias=True):
    """A dense layer with the initializer and the policy of an encoder's `Residual`."""
    return keras.layers.Dense(
        units,
        activation,
        use_bias,
        kernel_initializer=residual.initializer(),
        dtype=residual.policy,
        name=name,
    )


def bert_heads(x, embedding, activation, residual, pool, nsp, mlm):
    """The outputs of an encoder with BERT's heads.

        pooled = act(x_0 W + b);  nsp = softmax(pooled W + b)
        mlm = softmax(LN(activation(x W + b)) table^T + b)

    Args:
        x: (b, n, d) tensor of the graph, the hidden states.
        embedding: `keras.layers.ReversibleEmbedding`, the table of the tokens, if `mlm`.
        activation: function, that of the masked language model's dense layer.
        residual: `Residual` of the encoder, whose norm, initializer and policy the heads share.
        pool: bool or name of an activation (True: "tanh"), whether to give `pooled_output`.
        nsp: bool, whether to give `nsp`, which takes the pooler.
        mlm: bool or name of an activation (True: "softmax"; "linear" gives logits), whether to
            give `mlm`.

    Returns:
        `x` alone without heads, else dict of `sequence_output` and, as present, `pooled_output`
        (b, d), `nsp` (b, 2) float32 and `mlm` (b, n, vocabulary) float32.
    """
    outputs = {"sequence_output": x}
    if pool or nsp:
        pooling = "tanh" if pool in (True, False) else pool
        pooler = dense(x.shape[-1], "Pooler-Dense", residual, pooling)
        outputs["pooled_output"] = pooler(x[:, 0])
    if nsp:
        scores = dense(2, "NSP-Proba", residual)(outputs["pooled_output"])
        outputs["nsp"] = output_activation("NSP-Activation", True, "softmax")(scores)
    if mlm:
        y = dense(embedding.output_dim, "MLM-Dense", residual, activation)(x)
        y = residual.norm(dtype=residual.policy, name="MLM-Norm")(y)
        scores = embedding(y, reverse=True)
        scores = ScaleOffset(scale=False, dtype=residual.policy, name="MLM-Bias")(scores)
        outputs["mlm"] = output_activation("MLM-Activation", mlm, "softmax")(scores)
    return outputs if len(outputs) > 1 else x


def bare_mlm(x, embedding, residual, mlm):
    """The outputs of an encoder without biases, whose one head is that of the language model.

        mlm = softmax(dropout(x W) table^T),  W only where the embeddings have another width

    Args:
        x: (b, n, d) tensor of the graph, the hidden states.
        embedding: `keras.layers.ReversibleEmbedding`, the table of the tokens, if `mlm`.
        residual: `Residual` of the encoder, whose dropout, initializer and policy the head shares.
        mlm: bool or name of an activation (True: "softmax"; "linear" gives logits).

    Returns:
        `x` without the head, else dict of `sequence_output` and `mlm` (b, n, vocabulary) float32.
    """
    if not mlm:
        return x
    y = x
    if embedding.output_dim != x.shape[-1]:
        y = dense(embedding.output_dim, "Output-Mapping", residual, use_bias=False)(y)
    drop = keras.layers.Dropout(residual.dropout, dtype=residual.policy, name="Output-MLM-Dropout")
    scores = embedding(drop(y), reverse=True)
    return {
        "sequence_output": x,
        "mlm": output_activation("Output-MLM-Activation", mlm, "softmax")(scores),
    }


def discriminator(x, activation, residual, given):
    """The outputs of an encoder with ELECTRA's head.

        discriminator = sigmoid(activation(x W + b) w + c)

    Args:
        x: (b, n, d) tensor of the graph, the hidden states.
        activation: function, that of the dense layer.
        residual: `Residual` of the encoder, whose initializer and policy the head shares.
        given: bool or name of an activation (True: "sigmoid"; "linear" gives logits).

    Returns:
        `x` without the head, else dict of `sequence_output` and `discriminator` (b, n, 1) float32.
    """
    if not given:
        return x
    y = dense(x.shape[-1], "Discriminator-Dense", residual, activation)(x)
    scores = dense(1, "Discriminator-Prediction", residual)(y)
    last = output_activation("Discriminator-Activation", given, "sigmoid")
    return {"sequence_output": x, "discriminator": last(scores)}
