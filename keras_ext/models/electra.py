from functools import partial

import keras

from keras_ext import activations
from keras_ext.layers.feed_forward import FeedForward
from keras_ext.models.blocks import (
    Residual,
    encoder_inputs,
    keep_arguments,
    kept_config,
    key_mask,
    self_attention,
    stack,
    transformer_blocks,
)
from keras_ext.models.embeddings import embed, position_embedding, token_embedding
from keras_ext.models.heads import discriminator


@keras.saving.register_keras_serializable(package="keras_ext")
class ElectraEncoder(keras.Model):
    """ELECTRA: a BERT trained to find the tokens that were replaced.

        x = dropout(LN(token embedding + segment embedding + position embedding)) W + b
        x = LN(x + dropout(attention(x)));  x = LN(x + dropout(feed_forward(x)));  num_layers times

    W and b only where the embeddings have another width. The discriminator is
    `sigmoid(activation(x W + b) w + c)`, the probability that a token was replaced.

    Args:
        with_discriminator: bool or name of an activation (True: "sigmoid"; "linear" gives logits),
            whether to output the discriminator, too. Defaults to False.

    Returns:
        (b, n, hidden_dim) in the compute dtype; `with_discriminator` a dict of that as
        `sequence_output` and `discriminator` (b, n, 1) float32.

    Other arguments, inputs, blocks and errors are those of `BertEncoder`.

    Example:

    >>> import numpy as np
    >>> encoder = ElectraEncoder(
    ...     vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32
    ... )
    >>> ids = np.array([[7, 8, 9, 0]])
    >>> batch = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids > 0}
    >>> tuple(encoder(batch).shape)
    (1, 4, 16)

    Source: Kevin Clark et al., ELECTRA: Pre-training Text Encoders as Discriminators Rather Than
    Generators, 2020, https://arxiv.org/abs/2003.10555
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
        with_discriminator=False,
        embedding_dim=None,
        head_size=None,
        key_size=None,
        hierarchical_position=None,
        custom_position_ids=False,
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
        tokens = token_embedding(vocabulary_size, width, initializer(), policy, tied=False)
        positions = position_embedding(
            max_sequence_length, hierarchical_position, initializer(), policy
        )
        attention = self_attention(hidden_dim, num_heads, head_size, key_size, attention_dropout)
        feed_forward = partial(FeedForward, intermediate_dim, activation)

        # === Functional model ===
        inputs = encoder_inputs(num_segments, custom_position_ids)
        x = embed(inputs, tokens, num_segments, hidden_dim, joined, positions)
        blocks = transformer_blocks(num_layers, joined, attention, feed_forward)
        x, passed = stack(x, blocks, joined, mask=key_mask(inputs, column_dropout))
        outputs = discriminator(x, activation, joined, with_discriminator)
        super().__init__(inputs, outputs, name=name)
        self.blocks = passed
        keep_arguments(self, arguments)

    def get_config(self):
        return kept_config(self)
