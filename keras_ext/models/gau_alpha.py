from functools import partial

import keras

from keras_ext import activations
from keras_ext.models.blocks import keep_arguments, kept_config
from keras_ext.models.gau import GAUEncoder


@keras.saving.register_keras_serializable(package="keras_ext")
class GAUAlphaEncoder(GAUEncoder):
    """GAU-alpha: gated attention units in place of attention and feed-forward.

        x = RMS(dropout(token embedding + segment embedding))
        x = RMS(x + dropout(GAU(x))),  num_layers times

    The `GAUEncoder` that was pretrained: RMS(x) = x / sqrt(mean(x^2) + epsilon) has no weights and
    GAU is a `GatedAttentionUnit` without biases, normalised by "softmax_plus", its queries and keys
    turned by rotary position embedding. Two units have about the weights of one block of BERT, so a
    base model has 24. Weights begin with the variance 1 / (fan_in num_layers^(2/3)).

    Args:
        intermediate_dim: int, width inside the units, often twice `hidden_dim`.

    Other arguments, inputs, outputs, blocks and errors are those of `GAUEncoder`.

    Example:

    >>> import numpy as np
    >>> encoder = GAUAlphaEncoder(
    ...     vocabulary_size=100, num_layers=2, hidden_dim=16, intermediate_dim=32
    ... )
    >>> ids = np.array([[7, 8, 9, 0]])
    >>> batch = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids > 0}
    >>> tuple(encoder(batch).shape)
    (1, 4, 16)

    Source: Jianlin Su et al., GAU-alpha, 2022, https://kexue.fm/archives/9052
    """

    def __init__(
        self,
        vocabulary_size,
        num_layers,
        hidden_dim,
        intermediate_dim,
        key_size=128,
        num_segments=2,
        dropout=0.1,
        attention_dropout=0.1,
        activation="swish",
        layer_norm_epsilon=1e-7,
        with_mlm=False,
        embedding_dim=None,
        custom_position_ids=False,
        application="encoder",
        column_dropout=0.0,
        dtype=None,
        name=None,
        trainable=True,
    ):
        activation = activations.get(activation)
        arguments = dict(locals())
        super().__init__(
            vocabulary_size,
            num_layers,
            hidden_dim,
            intermediate_dim,
            key_size,
            num_segments,
            dropout,
            attention_dropout,
            activation,
            layer_norm_epsilon,
            with_mlm,
            embedding_dim,
            custom_position_ids,
            application,
            use_bias=False,
            normalization="softmax_plus",
            column_dropout=column_dropout,
            kernel_initializer=None,  # see `_initializers`
            dtype=dtype,
            name=name,
            trainable=trainable,
        )
        keep_arguments(self, arguments)

    @staticmethod
    def _initializers(kernel_initializer, num_layers):
        scaled = partial(
            keras.initializers.VarianceScaling,
            num_layers ** (-2 / 3),
            distribution="truncated_normal",
        )
        return partial(scaled, mode="fan_in"), partial(scaled, mode="fan_out")

    def get_config(self):
        return kept_config(self)
