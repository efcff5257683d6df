from functools import partial

import keras

from keras_ext import activations
from keras_ext.layers.feed_forward import FeedForward
from keras_ext.layers.multi_head_self_attention import MultiHeadSelfAttention
from keras_ext.models.blocks import (
    Residual,
    add_segments,
    attention_mask,
    check_heads,
    encoder_inputs,
    keep_arguments,
    kept_config,
    stack,
    token_embedding,
    transformer_block,
    widen,
)
from keras_ext.models.heads import bert_heads


@keras.saving.register_keras_serializable(package="keras_ext")
class RoFormerEncoder(keras.Model):
    """RoFormer: a BERT whose attention is told the positions by rotation.

        x = dropout(LN(token embedding + segment embedding))
        x = LN(x + dropout(attention(x)));  x = LN(x + dropout(feed_forward(x)));  num_layers times

    Queries and keys of each head are turned by rotary position embedding, so no length is the
    longest.

    Args:
        layer_norm_epsilon: float. Defaults to 1e-7; statistics are float32 in every precision.

    Raises:
        ValueError: also if heads have an odd size; any length is allowed.

    Other arguments, inputs, outputs, blocks and errors are those of `BertEncoder`.

    Example:

    >>> import numpy as np
    >>> encoder = RoFormerEncoder(
    ...     vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32
    ... )
    >>> ids = np.array([[7, 8, 9, 0]])
    >>> batch = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids > 0}
    >>> tuple(encoder(batch).shape)
    (1, 4, 16)

    Source: Jianlin Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding,
    2021, https://arxiv.org/abs/2104.09864
    """

    def __init__(
        self,
        vocabulary_size,
        num_layers,
        num_heads,
        hidden_dim,
        intermediate_dim,
        num_segments=2,
        dropout=0.1,
        attention_dropout=0.1,
        activation="gelu",
        layer_norm_epsilon=1e-7,
        with_pool=False,
        with_nsp=False,
        with_mlm=False,
        embedding_dim=None,
        head_size=None,
        key_size=None,
        custom_position_ids=False,
        application="encoder",
        residual="post",
        dtype=None,
        name=None,
        trainable=True,
    ):
        activation = activations.get(activation)
        arguments = dict(locals())
        policy = keras.dtype_policies.get(dtype)
        channels = check_heads(hidden_dim, num_heads, head_size)

        # === Layers ===
        initializer = partial(keras.initializers.TruncatedNormal, stddev=0.02)
        norm = partial(keras.layers.LayerNormalization, epsilon=layer_norm_epsilon)
        joined = Residual(residual, num_layers, dropout, norm, initializer, policy)
        width = embedding_dim or hidden_dim
        tokens = token_embedding(vocabulary_size, width, initializer(), policy, bool(with_mlm))
        attention = partial(
            MultiHeadSelfAttention,
            num_heads,
            channels,
            key_size,
            hidden_dim,
            rope=True,
            attention_dropout=attention_dropout,
        )
        feed_forward = partial(FeedForward, intermediate_dim, activation)

        # === Functional model ===
        inputs = encoder_inputs(num_segments, custom_position_ids)
        x = tokens(inputs["token_ids"])
        x = add_segments(x, inputs, num_segments, initializer(), policy)
        x = joined.first_norm(x)
        x = keras.layers.Dropout(dropout, dtype=policy, name="Embedding-Dropout")(x)
        x = widen(x, hidden_dim, initializer(), policy)
        mask, visible = inputs["padding_mask"], attention_mask(inputs, application)
        positions = inputs.get("position_ids")
        blocks = (
            transformer_block(f"Transformer-{i}", joined, attention, feed_forward)
            for i in range(num_layers)
        )
        x, passed = stack(x, blocks, mask=mask, attention_mask=visible, positions=positions)
        x = joined.last_norm(x)
        outputs = bert_heads(
            x, tokens, activation, norm, initializer, policy, with_pool, with_nsp, with_mlm
        )
        super().__init__(inputs, outputs, name=name)
        self.blocks = passed
        keep_arguments(self, arguments)

    def get_config(self):
        return kept_config(self)
