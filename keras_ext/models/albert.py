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
    transformer_block,
)
from keras_ext.models.embeddings import embed, position_embedding, token_embedding
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
        positions = position_embedding(
            max_sequence_length, hierarchical_position, initializer(), policy
        )
        attention = self_attention(hidden_dim, num_heads, head_size, key_size, attention_dropout)
        feed_forward = partial(FeedForward, intermediate_dim, activation)
        block = transformer_block("Transformer", joined, attention, feed_forward)

        # === Functional model ===
        inputs = encoder_inputs(num_segments, custom_position_ids)
        x = embed(inputs, tokens, num_segments, hidden_dim, joined, positions)
        mask, visible = key_mask(inputs, column_dropout), attention_mask(inputs, application)
        x, passed = stack(x, num_layers * [block], joined, mask=mask, attention_mask=visible)
        outputs = bert_heads(x, tokens, activation, joined, with_pool, with_nsp, with_mlm)
        super().__init__(inputs, outputs, name=name)
        self.blocks = passed
        keep_arguments(self, arguments)

    def get_config(self):
        return kept_config(self)
