import keras

from keras_ext import activations
from keras_ext.layers.feed_forward import FeedForward
from keras_ext.layers.multi_head_self_attention import MultiHeadSelfAttention
from keras_ext.models.blocks import check_heads, encoder_inputs, pooled, post_norm


@keras.saving.register_keras_serializable(package="keras_ext")
class RoFormerEncoder(keras.Model):
    """RoFormer: a BERT whose attention is told the positions by rotation.

        x = dropout(LN(token embedding + segment embedding))
        x = LN(x + dropout(attention(x)));  x = LN(x + dropout(feed_forward(x)));  num_layers times

    Queries and keys of each head are turned by rotary position embedding, so no length is the
    longest. A functional model; its layers bear bert4keras' names. Freezing single layers is not
    part of the config, freezing all of them (`trainable`) is.

    Args:
        vocabulary_size: int, number of token ids.
        num_layers: int, number of blocks.
        num_heads: int, attention heads; divides `hidden_dim`.
        hidden_dim: int, width of the blocks and the output. Heads have an even size.
        intermediate_dim: int, width inside the feed-forward.
        num_segments: int, number of segment ids. Defaults to 2.
        dropout: float in [0, 1), after the embeddings and each layer. Defaults to 0.1.
        attention_dropout: float in [0, 1), on the attention weights. Defaults to 0.1.
        activation: name or function. Defaults to "gelu" (by the error function); "gelu_tanh" is
            the approximation that Google's own code uses.
        layer_norm_epsilon: float. Defaults to 1e-7, as in bert4keras.
        with_pool: bool, whether to output a vector of the sentence, too. Defaults to False.
        dtype: dtype policy of all layers, or its name. Defaults to the global policy.
        name: name of the model.
        trainable: bool. False freezes the model. Defaults to True.

    Call arguments:
        inputs: dict of `token_ids` and `segment_ids` (b, n) int32 and `padding_mask` (b, n) bool,
            true = token.

    Returns:
        (b, n, hidden_dim) in the compute dtype; `with_pool` a dict of that as `sequence_output`
        and `pooled_output` (b, hidden_dim).

    Raises:
        ValueError: if `num_heads` does not divide `hidden_dim`, or heads have an odd size.

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
        dtype=None,
        name=None,
        trainable=True,
    ):
        check_heads(hidden_dim, num_heads)
        policy = keras.dtype_policies.get(dtype)
        activation = activations.get(activation)

        # === Layers ===
        def initializer():
            return keras.initializers.TruncatedNormal(stddev=0.02)

        def embedding(rows, name):
            return keras.layers.Embedding(
                rows, hidden_dim, embeddings_initializer=initializer(), dtype=policy, name=name
            )

        embedding_norm = keras.layers.LayerNormalization(
            epsilon=layer_norm_epsilon, dtype=policy, name="Embedding-Norm"
        )

        # === Functional model ===
        inputs = encoder_inputs()
        x = keras.layers.Add(dtype=policy, name="Embedding-Token-Segment")(
            [
                embedding(vocabulary_size, "Embedding-Token")(inputs["token_ids"]),
                embedding(num_segments, "Embedding-Segment")(inputs["segment_ids"]),
            ]
        )
        x = embedding_norm(x)
        x = keras.layers.Dropout(dropout, dtype=policy, name="Embedding-Dropout")(x)
        for i in range(num_layers):
            attention = MultiHeadSelfAttention(
                num_heads,
                hidden_dim // num_heads,
                rope=True,
                attention_dropout=attention_dropout,
                kernel_initializer=initializer(),
                dtype=policy,
                name=f"Transformer-{i}-MultiHeadSelfAttention",
            )
            feed_forward = FeedForward(
                intermediate_dim,
                activation,
                kernel_initializer=initializer(),
                dtype=policy,
                name=f"Transformer-{i}-FeedForward",
            )
            mask = inputs["padding_mask"]
            x = post_norm(x, attention, dropout, layer_norm_epsilon, mask=mask)
            x = post_norm(x, feed_forward, dropout, layer_norm_epsilon)
        if with_pool:
            x = {"sequence_output": x, "pooled_output": pooled(x, initializer(), policy)}
        super().__init__(inputs, x, name=name)

        # === Config ===
        self.dtype_policy = policy
        self.trainable = trainable
        self.vocabulary_size = vocabulary_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.hidden_dim = hidden_dim
        self.intermediate_dim = intermediate_dim
        self.num_segments = num_segments
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.activation = activation
        self.layer_norm_epsilon = layer_norm_epsilon
        self.with_pool = with_pool

    def get_config(self):
        return {
            "vocabulary_size": self.vocabulary_size,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "hidden_dim": self.hidden_dim,
            "intermediate_dim": self.intermediate_dim,
            "num_segments": self.num_segments,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "activation": activations.serialize(self.activation),
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "with_pool": self.with_pool,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "name": self.name,
            "trainable": self.trainable,
        }
