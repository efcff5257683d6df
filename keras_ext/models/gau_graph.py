"""The graph of a stack of gated attention units."""

from functools import partial

import keras

from keras_ext.layers.gated_attention_unit import GatedAttentionUnit
from keras_ext.layers.rms_norm import RMSNorm
from keras_ext.models.blocks import (
    add_segments,
    attention_mask,
    encoder_inputs,
    token_embedding,
    widen,
)
from keras_ext.models.heads import bare_mlm
from keras_ext.models.residual import Residual


def gau_graph(
    unit,
    kernel,
    table,
    policy,
    vocabulary_size,
    num_layers,
    hidden_dim,
    embedding_dim,
    num_segments,
    dropout,
    epsilon,
    with_mlm,
    custom_position_ids,
    application,
    residual="post",
):
    """What a GAU encoder takes and gives.

        x = RMS(dropout(token embedding + segment embedding))
        x = RMS(x + dropout(GAU(x))),  num_layers times

    Args:
        unit: dict, the arguments of each `GatedAttentionUnit`.
        kernel: function that gives a new initializer of a kernel.
        table: function that gives a new initializer of an embedding table.
        policy: dtype policy of all layers.
        vocabulary_size: int, number of token ids.
        num_layers: int, number of units.
        hidden_dim: int, width.
        embedding_dim: int, width of the embeddings, or None.
        num_segments: int, number of segment ids; 0: none.
        dropout: float in [0, 1).
        epsilon: float, that of the norms.
        with_mlm: bool or name of an activation.
        custom_position_ids: bool, whether positions are an input.
        application: "encoder", "lm" or "unilm".
        residual: "post", "pre" or "deepnorm".

    Returns:
        Inputs and outputs of the model.
    """
    norm = partial(RMSNorm, epsilon=epsilon)
    # Two units stand for a block of two layers.
    joined = Residual(residual, (num_layers + 1) // 2, dropout, norm, kernel, policy)
    width = embedding_dim or hidden_dim
    tokens = token_embedding(vocabulary_size, width, table(), policy, bool(with_mlm))
    inputs = encoder_inputs(num_segments, custom_position_ids)
    x = add_segments(tokens(inputs["token_ids"]), inputs, num_segments, table(), policy)
    x = keras.layers.Dropout(dropout, dtype=policy, name="Embedding-Dropout")(x)
    x = joined.first_norm(x)
    x = widen(x, hidden_dim, kernel(), policy, unit["use_bias"])
    # A unit that knows itself to be causal needs no mask, and a product less with a window.
    causal = application == "lm"
    mask = inputs["padding_mask"]
    visible = None if causal else attention_mask(inputs, application)
    positions = inputs.get("position_ids")
    for i in range(num_layers):
        layer = GatedAttentionUnit(
            **unit,
            causal=causal,
            kernel_initializer=joined.branch_kernel(),
            dtype=policy,
            name=f"Transformer-{i}-GatedAttentionUnit",
        )
        x = joined.join(layer)(x, mask=mask, attention_mask=visible, positions=positions)
    outputs = bare_mlm(joined.last_norm(x), tokens, dropout, kernel, policy, with_mlm)
    return inputs, outputs
