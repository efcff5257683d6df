from functools import partial

import keras

from keras_ext import activations
from keras_ext.layers.attention_arguments import restored_scale, scale_config
from keras_ext.layers.gated_attention_unit import GatedAttentionUnit
from keras_ext.layers.rms_norm import RMSNorm
from keras_ext.models.blocks import (
    Residual,
    attention_mask,
    encoder_inputs,
    keep_arguments,
    kept_config,
    key_mask,
    stack,
)
from keras_ext.models.embeddings import add_segments, token_embedding, widen
from keras_ext.models.heads import bare_mlm


@keras.saving.register_keras_serializable(package="keras_ext")
class GAUEncoder(keras.Model):
    """A stack of gated attention units, which trains from scratch without a warm-up.

        x = RMS(dropout(token embedding + segment embedding))
        x = RMS(x + dropout(GAU(x))),  num_layers times

    where RMS(x) = x / sqrt(mean(x^2) + epsilon) has no weights and GAU is a `GatedAttentionUnit`,
    its queries and keys turned by rotary position embedding. Two units have about the weights of
    one block of attention and feed-forward. With the defaults a unit's output begins as about a
    hundredth to a thousandth of its input, since its input projection is one kernel that begins as
    Xavier's: so each block begins as almost the identity, the main reason why no warm-up is needed.

    A functional model. `GAUAlphaEncoder` is the one with published weights.

    Args:
        vocabulary_size: int, number of token ids.
        num_layers: int, number of units.
        hidden_dim: int, width of the blocks and the output.
        intermediate_dim: int, width inside the units. None: twice `hidden_dim`.
        key_size: int, channels of queries and keys. Defaults to 128.
        activation: name or function. Defaults to "swish".
        layer_norm_epsilon: float. Defaults to 1e-7; statistics are float32 in every precision.
        residual: "post"; "pre": norms stand before the units and at the output; "deepnorm": the
            constants of N / 2 blocks, all kernels of a unit begin as Xavier's times beta. Defaults
            to "post".
        use_bias, normalization, attention_scale, length_norm, score_scale, rope_window,
            rope_slope: those of `GatedAttentionUnit`.
        kernel_initializer: initializer of the kernels, but for "deepnorm". Defaults to
            "glorot_uniform".

    Returns:
        (b, n, hidden_dim) in the compute dtype; `with_mlm` a dict of that as `sequence_output` and
        `mlm` (b, n, vocabulary_size) float32.

    Raises:
        ValueError: if `key_size` is odd; for "unilm" without segments; for an unknown or
            contradictory choice.

    Other arguments, inputs and blocks are those of `BertEncoder`; a block is one unit, its first
    layer the `GatedAttentionUnit`.

    Example:

    >>> import numpy as np
    >>> encoder = GAUEncoder(vocabulary_size=100, num_layers=2, hidden_dim=16)
    >>> ids = np.array([[7, 8, 9, 0]])
    >>> batch = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids > 0}
    >>> tuple(encoder(batch).shape)
    (1, 4, 16)

    Source: Weizhe Hua et al., Transformer Quality in Linear Time, 2022,
    https://arxiv.org/abs/2202.10447; https://kexue.fm/archives/8934,
    https://kexue.fm/archives/8990
    """

    def __init__(
        self,
        vocabulary_size,
        num_layers,
        hidden_dim,
        intermediate_dim=None,
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
        residual="post",
        use_bias=True,
        normalization="squared_relu",
        attention_scale=True,
        length_norm=None,
        score_scale="bert4keras",
        rope_window=None,
        rope_slope=0.0,
        kernel_initializer="glorot_uniform",
        column_dropout=0.0,
        dtype=None,
        name=None,
        trainable=True,
    ):
        activation = activations.get(activation)
        attention_scale = restored_scale(attention_scale)
        kernel_initializer = keras.initializers.get(kernel_initializer)
        arguments = dict(locals())
        policy = keras.dtype_policies.get(dtype)

        # === Layers ===
        kernel, table = self._initializers(kernel_initializer, num_layers)
        norm = partial(RMSNorm, epsilon=layer_norm_epsilon)
        # Two units stand for a block of two layers.
        joined = Residual(residual, (num_layers + 1) // 2, dropout, norm, kernel, policy)
        width = embedding_dim or hidden_dim
        tokens = token_embedding(vocabulary_size, width, table(), policy, bool(with_mlm))
        unit = partial(
            GatedAttentionUnit,
            intermediate_dim or 2 * hidden_dim,
            key_size,
            activation,
            use_bias,
            normalization,
            attention_scale=attention_scale,
            attention_dropout=attention_dropout,
            rope=True,
            # A unit that knows itself to be causal needs no mask, and a product less with a window.
            causal=application == "lm",
            length_norm=length_norm,
            score_scale=score_scale,
            rope_window=rope_window,
            rope_slope=rope_slope,
            dtype=policy,
        )

        # === Functional model ===
        inputs = encoder_inputs(num_segments, custom_position_ids)
        x = tokens(inputs["token_ids"])
        x = add_segments(x, inputs, num_segments, table(), policy)
        x = keras.layers.Dropout(dropout, dtype=policy, name="Embedding-Dropout")(x)
        x = joined.first_norm(x)
        x = widen(x, hidden_dim, kernel(), policy, use_bias)
        visible = None if application == "lm" else attention_mask(inputs, application)
        mask, positions = key_mask(inputs, column_dropout), inputs.get("position_ids")
        blocks = (
            joined.join(
                unit(
                    kernel_initializer=joined.branch_kernel(),
                    name=f"Transformer-{i}-GatedAttentionUnit",
                )
            )
            for i in range(num_layers)
        )
        x, passed = stack(x, blocks, joined, mask=mask, attention_mask=visible, positions=positions)
        outputs = bare_mlm(x, tokens, joined, with_mlm)
        super().__init__(inputs, outputs, name=name)
        self.blocks = passed
        keep_arguments(self, arguments)

    @staticmethod
    def _initializers(kernel_initializer, num_layers):
        """Functions that give a new initializer of a kernel and of a table of embeddings.

        How the weights begin is the one thing that `GAUAlphaEncoder` has of its own.
        """
        table = partial(keras.initializers.VarianceScaling, 1.0, "fan_out", "truncated_normal")
        return kernel_initializer.clone, table

    def get_config(self):
        return {
            **kept_config(self),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "attention_scale": scale_config(self.attention_scale),
        }
