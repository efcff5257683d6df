from functools import partial

import keras
from keras import ops

from keras_ext.layers.bigram_embedding import BigramEmbedding
from keras_ext.layers.feed_forward import FeedForward
from keras_ext.layers.multi_head_self_attention import MultiHeadSelfAttention
from keras_ext.models.blocks import (
    Residual,
    check_heads,
    encoder_inputs,
    keep_arguments,
    kept_config,
    key_mask,
    stack,
    transformer_blocks,
)

EPSILON = 1e-6


@keras.saving.register_keras_serializable(package="keras_ext")
class BigramRoFormerEncoder(keras.Model):
    """A small encoder of characters, to be trained from scratch.

        x = dropout([token_dropout(token embedding), token_dropout(bigram embedding)])
        x = dropout(LN(gelu(conv(x))))
        x = x + dropout(attention(LN(x)));  x = x + dropout(feed_forward(LN(x)));  num_layers times
        output = LN(x),  0 at padded positions

    The pairs of characters and the convolution stand in for the words that a pretrained encoder
    knows; normalising before each block instead of after it lets a few thousand sentences train
    it without a warm-up. The attention is rotary, so no length is the longest. This is a design
    of this package, not a published architecture: no checkpoints exist for it.

    Padding changes nothing: padded positions are 0 before the convolution and hidden from the
    attention.

    Args:
        vocabulary_size: int, number of token ids.
        bigram_buckets: int, rows of the table of pairs. Defaults to 50000.
        num_layers: int, number of rotary blocks. Defaults to 3.
        num_heads: int, attention heads; divides `hidden_dim`. Defaults to 8.
        hidden_dim: int, width of the blocks and the output. Defaults to 256.
        intermediate_dim: int, width inside the feed-forward. Defaults to 1024.
        embedding_dim: int, width of each of the two embeddings. Defaults to 128.
        kernel_size: int, tokens that the convolution sees. Defaults to 3.
        dropout: float in [0, 1), of single channels. Defaults to 0.3.
        token_dropout: float in [0, 1), of the whole vectors of characters and, independently, of
            pairs: rare ones would otherwise be learnt by heart. Defaults to 0.15.
        column_dropout: float in [0, 1), as that of `BertEncoder`. Defaults to 0.
        dtype: dtype policy of all layers, or its name. Defaults to the global policy.
        name: name of the model.
        trainable: bool. False freezes the model. Defaults to True.

    Call arguments:
        inputs: dict of `token_ids` and `segment_ids` (b, n) int32 and `padding_mask` (b, n) bool,
            true = token: those of a BERT, though nothing depends on the segments.

    Returns:
        (b, n, hidden_dim) in the compute dtype, 0 at padded positions.

    Raises:
        ValueError: if `num_heads` does not divide `hidden_dim`.

    Attributes:
        blocks: as those of `BertEncoder`; "Output-Norm" comes after the last.

    Example:

    >>> import numpy as np
    >>> encoder = BigramRoFormerEncoder(100, num_layers=1, hidden_dim=16, intermediate_dim=32)
    >>> ids = np.array([[7, 8, 9]])
    >>> batch = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids > 0}
    >>> tuple(encoder(batch).shape)
    (1, 3, 16)
    """

    def __init__(
        self,
        vocabulary_size,
        bigram_buckets=50000,
        num_layers=3,
        num_heads=8,
        hidden_dim=256,
        intermediate_dim=1024,
        embedding_dim=128,
        kernel_size=3,
        dropout=0.3,
        token_dropout=0.15,
        column_dropout=0.0,
        dtype=None,
        name=None,
        trainable=True,
    ):
        arguments = dict(locals())
        channels = check_heads(hidden_dim, num_heads)
        policy = keras.dtype_policies.get(dtype)

        # === Layers ===
        token_embedding = keras.layers.Embedding(
            vocabulary_size, embedding_dim, dtype=policy, name="Embedding-Token"
        )
        bigram_embedding = BigramEmbedding(
            bigram_buckets, embedding_dim, dtype=policy, name="Embedding-Bigram"
        )
        convolution = keras.layers.Conv1D(
            hidden_dim,
            kernel_size,
            padding="same",
            activation="gelu",
            dtype=policy,
            name="Embedding-Convolution",
        )

        norm = partial(keras.layers.LayerNormalization, epsilon=EPSILON, dtype=policy)
        initializer = keras.initializers.GlorotUniform
        joined = Residual("pre", num_layers, dropout, norm, initializer, policy)
        attention = partial(MultiHeadSelfAttention, num_heads, channels, rope=True)
        feed_forward = partial(FeedForward, intermediate_dim)

        def drop(name):
            return keras.layers.Dropout(dropout, dtype=policy, name=name)

        def drop_tokens(name):
            shape = (None, None, 1)  # a token's whole vector, or nothing of it
            return keras.layers.Dropout(token_dropout, noise_shape=shape, dtype=policy, name=name)

        # === Functional model ===
        inputs = encoder_inputs()
        token_ids, padding_mask = inputs["token_ids"], inputs["padding_mask"]
        embeddings = [
            drop_tokens("Embedding-Token-Dropout")(token_embedding(token_ids)),
            drop_tokens("Embedding-Bigram-Dropout")(bigram_embedding(token_ids, mask=padding_mask)),
        ]
        x = keras.layers.Concatenate(dtype=policy, name="Embedding-Token-Bigram")(embeddings)
        x = drop("Embedding-Dropout")(x)
        # The kernel reaches over the end of the sentence: padding must look like the zeros there.
        token = ops.cast(ops.expand_dims(padding_mask, -1), policy.compute_dtype)
        x = x * token
        x = norm(name="Embedding-Norm")(convolution(x))
        x = drop("Embedding-Norm-Dropout")(x)
        blocks = transformer_blocks(num_layers, joined, attention, feed_forward)
        x, passed = stack(x, blocks, joined, mask=key_mask(inputs, column_dropout))
        # Padding is a zero vector before each norm, where the gradient is 1 / sqrt(epsilon) times
        # larger: none may come back from there.
        super().__init__(inputs, x * token, name=name)
        self.blocks = passed
        keep_arguments(self, arguments)

    def get_config(self):
        return kept_config(self)
