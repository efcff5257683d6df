from functools import partial

import keras

from keras_ext import activations
from keras_ext.layers.feed_forward import FeedForward
from keras_ext.layers.relative_position_embedding import RelativePositionEmbedding
from keras_ext.models.blocks import (
    Residual,
    attention_mask,
    check_heads,
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
class NezhaEncoder(keras.Model):
    """NEZHA: a BERT whose attention is told the distance of each pair of tokens.

        x = dropout(LN(token embedding + segment embedding))
        x = LN(x + dropout(attention(x)));  x = LN(x + dropout(feed_forward(x)));  num_layers times

    Keys and values of a pair of tokens get a fixed sinusoidal vector of their distance, clipped to
    `max_relative_position` on both sides (see `MultiHeadSelfAttention`), so no length is the
    longest. That vector is a weight, not trained, of `Embedding-Relative-Position`.

    Args:
        max_relative_position: int, the largest distance that is told apart. Defaults to 64.
        layer_norm_epsilon: float. Defaults to 1e-7; statistics are float32 in every precision.

    Raises:
        ValueError: also if heads have an odd size; any length is allowed.

    Other arguments, inputs, outputs, blocks and errors are those of `BertEncoder`.

    Example:

    >>> import numpy as np
    >>> encoder = NezhaEncoder(
    ...     vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32
    ... )
    >>> ids = np.array([[7, 8, 9, 0]])
    >>> batch = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids > 0}
    >>> tuple(encoder(batch).shape)
    (1, 4, 16)

    Source: Junqiu Wei et al., NEZHA: Neural Contextualized Representation for Chinese Language
    Understanding, 2019, https://arxiv.org/abs/1909.00204
    """

    def __init__(
        self,
        vocabulary_size,
        num_layers,
        num_heads,
        hidden_dim,
        intermediate_dim,
        max_relative_position=64,
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
        relative_embedding = RelativePositionEmbedding(
            2 * max_relative_position + 1,
            check_heads(hidden_dim, num_heads, head_size),
            dtype=policy,
            name="Embedding-Relative-Position",
        )
        attention = self_attention(hidden_dim, num_heads, head_size, None, attention_dropout)
        feed_forward = partial(FeedForward, intermediate_dim, activation)

        # === Functional model ===
        inputs = encoder_inputs(num_segments)
        x = embed(inputs, tokens, num_segments, hidden_dim, joined)
        mask, visible = key_mask(inputs, column_dropout), attention_mask(inputs, application)
        relative = relative_embedding(x)
        blocks = transformer_blocks(num_layers, joined, attention, feed_forward)
        x, passed = stack(
            x, blocks, joined, mask=mask, attention_mask=visible, relative_embeddings=relative
        )
        outputs = bert_heads(x, tokens, activation, joined, with_pool, with_nsp, with_mlm)
        super().__init__(inputs, outputs, name=name)
        self.blocks = passed
        keep_arguments(self, arguments)

    def get_config(self):
        return kept_config(self)
