from functools import partial

import keras

from keras_ext import activations
from keras_ext.layers.feed_forward import FeedForward
from keras_ext.models.blocks import (
    Residual,
    attention_mask,
    encoder_inputs,
    keep_arguments,
    kept_config,
    key_mask,
    self_attention,
    stack,
    transformer_blocks,
)
from keras_ext.models.embeddings import embed, token_embedding
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
        column_dropout=0.0,
        dtype=None,
        name=None,
        trainable=True,
    ):
        activation = activations.get(activation)
        arguments = dict(locals())
        policy = keras.dtype_policies.get(dtype)

        # === Layers ===
        initializer = partial(keras.initializers.TruncatedNormal, stddev=0.02)
        norm = partial(keras.layers.LayerNormalization, epsilon=layer_norm_epsilon)
        joined = Residual(residual, num_layers, dropout, norm, initializer, policy)
        width = embedding_dim or hidden_dim
        tokens = token_embedding(vocabulary_size, width, initializer(), policy, bool(with_mlm))
        attention = self_attention(
            hidden_dim, num_heads, head_size, key_size, attention_dropout, rope=True
        )
        feed_forward = partial(FeedForward, intermediate_dim, activation)

        # === Functional model ===
        inputs = encoder_inputs(num_segments, custom_position_ids)
        x = embed(inputs, tokens, num_segments, hidden_dim, joined)
        mask, visible = key_mask(inputs, column_dropout), attention_mask(inputs, application)
        positions = inputs.get("position_ids")
        blocks = transformer_blocks(num_layers, joined, attention, feed_forward)
        x, passed = stack(x, blocks, joined, mask=mask, attention_mask=visible, positions=positions)
        outputs = bert_heads(x, tokens, activation, joined, with_pool, with_nsp, with_mlm)
        super().__init__(inputs, outputs, name=name)
        self.blocks = passed
        keep_arguments(self, arguments)

    def get_config(self):
        return kept_config(self)
