from functools import partial

import keras

from keras_ext import activations
from keras_ext.layers.feed_forward import FeedForward
from keras_ext.layers.multi_head_self_attention import MultiHeadSelfAttention
from keras_ext.layers.position_embedding import PositionEmbedding
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
class AlbertEncoder(keras.Model):
    """ALBERT: a BERT whose blocks share their weights, with narrow embeddings.

        x = dropout(LN(token embedding + segment embedding + position embedding)) W + b
        x = LN(x + dropout(attention(x)));  x = LN(x + dropout(feed_forward(x)));  num_layers times

    Args:
        embedding_dim: int, width of the embeddings. Defaults to 128; None: `hidden_dim`.

    Other arguments, inputs, outputs, blocks and errors are those of `BertEncoder`; all blocks have
    the same layers, each an output of its own.

    Example:

    >>> import numpy as np
    >>> encoder = AlbertEncoder(
    ...     vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32
    ... )
    >>> ids = np.array([[7, 8, 9, 0]])
    >>> batch = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids > 0}
    >>> tuple(encoder(batch).shape)
    (1, 4, 16)

    Source: Zhenzhong Lan et al., ALBERT: A Lite BERT for Self-supervised Learning of Language
    Representations, 2019, https://arxiv.org/abs/1909.11942
    """

    def __init__(
        self,
        vocabulary_size,
        num_layers,
        num_heads,
        hidden_dim,
        intermediate_dim,
        max_sequence_length=512,
        num_segments=2,
        dropout=0.1,
        attention_dropout=0.1,
        activation="gelu",
        layer_norm_epsilon=1e-12,
        with_pool=False,
        with_nsp=False,
        with_mlm=False,
        embedding_dim=128,
        head_size=None,
        key_size=None,
        hierarchical_position=None,
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
        position_embedding = PositionEmbedding(
            max_sequence_length,
            initializer(),
            hierarchical_position,
            dtype=policy,
            name="Embedding-Position",
        )
        attention = partial(
            MultiHeadSelfAttention,
            num_heads,
            channels,
            key_size,
            hidden_dim,
            attention_dropout=attention_dropout,
        )
        feed_forward = partial(FeedForward, intermediate_dim, activation)
        block = transformer_block("Transformer", joined, attention, feed_forward)

        # === Functional model ===
        inputs = encoder_inputs(num_segments, custom_position_ids)
        x = tokens(inputs["token_ids"])
        x = add_segments(x, inputs, num_segments, initializer(), policy)
        x = position_embedding(x, positions=inputs.get("position_ids"))
        x = joined.first_norm(x)
        x = keras.layers.Dropout(dropout, dtype=policy, name="Embedding-Dropout")(x)
        x = widen(x, hidden_dim, initializer(), policy)
        mask, visible = inputs["padding_mask"], attention_mask(inputs, application)
        x, passed = stack(x, num_layers * [block], mask=mask, attention_mask=visible)
        x = joined.last_norm(x)
        outputs = bert_heads(
            x, tokens, activation, norm, initializer, policy, with_pool, with_nsp, with_mlm
        )
        super().__init__(inputs, outputs, name=name)
        self.blocks = passed
        keep_arguments(self, arguments)

    def get_config(self):
        return kept_config(self)
