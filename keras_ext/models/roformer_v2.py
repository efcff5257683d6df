from functools import partial

import keras

from keras_ext import activations
from keras_ext.layers.feed_forward import FeedForward
from keras_ext.layers.rms_norm import RMSNorm
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
from keras_ext.models.embeddings import add_segments, token_embedding, widen
from keras_ext.models.heads import bare_mlm


@keras.saving.register_keras_serializable(package="keras_ext")
class RoFormerV2Encoder(keras.Model):
    """RoFormerV2: a RoFormer without biases, with a plainer normalisation.

        x = RMS(dropout(token embedding + segment embedding))
        x = RMS(x + dropout(attention(x)));  x = RMS(x + dropout(feed_forward(x)))

    num_layers times, where RMS(x) = x / sqrt(mean(x^2) + epsilon) has no weights. Weights begin with
    the variance 1 / (fan_in num_layers).

    Args:
        activation: name or function. Defaults to "relu".
        layer_norm_epsilon: float. Defaults to 1e-7; statistics are float32 in every precision.

    Returns:
        (b, n, hidden_dim) in the compute dtype; `with_mlm` a dict of that as `sequence_output` and
        `mlm` (b, n, vocabulary_size) float32.

    Raises:
        ValueError: also if heads have an odd size; any length is allowed.

    Other arguments, inputs, outputs, blocks and errors are those of `BertEncoder`.

    Example:

    >>> import numpy as np
    >>> encoder = RoFormerV2Encoder(
    ...     vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32
    ... )
    >>> ids = np.array([[7, 8, 9, 0]])
    >>> batch = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids > 0}
    >>> tuple(encoder(batch).shape)
    (1, 4, 16)

    Source: Jianlin Su et al., RoFormerV2: A Faster and Better RoFormer, 2022,
    https://github.com/ZhuiyiTechnology/roformer-v2
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
        activation="relu",
        layer_norm_epsilon=1e-7,
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
        scaled = partial(
            keras.initializers.VarianceScaling, 1 / num_layers, distribution="truncated_normal"
        )
        initializer, table = partial(scaled, mode="fan_in"), partial(scaled, mode="fan_out")
        norm = partial(RMSNorm, epsilon=layer_norm_epsilon)
        joined = Residual(residual, num_layers, dropout, norm, initializer, policy)
        width = embedding_dim or hidden_dim
        tokens = token_embedding(vocabulary_size, width, table(), policy, bool(with_mlm))
        attention = self_attention(
            hidden_dim, num_heads, head_size, key_size, attention_dropout, rope=True, use_bias=False
        )
        feed_forward = partial(FeedForward, intermediate_dim, activation, use_bias=False)

        # === Functional model ===
        inputs = encoder_inputs(num_segments, custom_position_ids)
        x = tokens(inputs["token_ids"])
        x = add_segments(x, inputs, num_segments, table(), policy)
        x = keras.layers.Dropout(dropout, dtype=policy, name="Embedding-Dropout")(x)
        x = joined.first_norm(x)
        x = widen(x, hidden_dim, initializer(), policy, use_bias=False)
        mask, visible = key_mask(inputs, column_dropout), attention_mask(inputs, application)
        positions = inputs.get("position_ids")
        blocks = transformer_blocks(num_layers, joined, attention, feed_forward)
        x, passed = stack(x, blocks, joined, mask=mask, attention_mask=visible, positions=positions)
        outputs = bare_mlm(x, tokens, joined, with_mlm)
        super().__init__(inputs, outputs, name=name)
        self.blocks = passed
        keep_arguments(self, arguments)

    def get_config(self):
        return kept_config(self)
