import keras

from keras_ext import activations
from keras_ext.layers.attention_arguments import restored_scale, scale_config
from keras_ext.models.blocks import check_application, keep_arguments, kept_config
from keras_ext.models.gau_graph import gau_graph


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
        num_segments: int, number of segment ids; 0: no input `segment_ids`. Defaults to 2.
        dropout: float in [0, 1), after the embeddings and each layer. Defaults to 0.1.
        attention_dropout: float in [0, 1), on the attention weights. Defaults to 0.1.
        activation: name or function. Defaults to "swish".
        layer_norm_epsilon: float. Defaults to 1e-7; statistics are float32 in every precision.
        with_mlm: bool or name of an activation (True: "softmax"; "linear" gives logits), whether
            to output a score of each id for each token, too. Defaults to False.
        embedding_dim: int, width of the embeddings. None: `hidden_dim`.
        custom_position_ids: bool, whether positions are an input, too. Defaults to False.
        application: "encoder"; "lm": a token sees those before it; "unilm": segment 0 sees
            itself, segment 1 what stands before. Defaults to "encoder".
        residual: "post"; "pre": norms stand before the units and at the output; "deepnorm": the
            constants of N / 2 blocks, all kernels of a unit begin as Xavier's times beta. Defaults
            to "post".
        use_bias, normalization, attention_scale, length_norm, score_scale, rope_window,
            rope_slope: those of `GatedAttentionUnit`.
        kernel_initializer: initializer of the kernels, but for "deepnorm". Defaults to
            "glorot_uniform".
        dtype: dtype policy of all layers, or its name. Defaults to the global policy.
        name: name of the model.
        trainable: bool. False freezes the model. Defaults to True.

    Call arguments:
        inputs: dict of `token_ids` and `segment_ids` (b, n) int32 and `padding_mask` (b, n) bool,
            true = token; with `custom_position_ids` also `position_ids` (b, n) float32.

    Returns:
        (b, n, hidden_dim) in the compute dtype; `with_mlm` a dict of that as `sequence_output` and
        `mlm` (b, n, vocabulary_size) float32.

    Raises:
        ValueError: if `key_size` is odd; for "unilm" without segments; for an unknown or
            contradictory choice.

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
        dtype=None,
        name=None,
        trainable=True,
    ):
        check_application(application, num_segments)
        policy = keras.dtype_policies.get(dtype)
        kernel_initializer = keras.initializers.get(kernel_initializer)

        # === Layers ===
        unit = {
            "units": intermediate_dim or 2 * hidden_dim,
            "key_size": key_size,
            "activation": activations.get(activation),
            "use_bias": use_bias,
            "normalization": normalization,
            "attention_scale": restored_scale(attention_scale),
            "attention_dropout": attention_dropout,
            "rope": True,
            "length_norm": length_norm,
            "score_scale": score_scale,
            "rope_window": rope_window,
            "rope_slope": rope_slope,
        }

        def table():
            return keras.initializers.VarianceScaling(1.0, "fan_out", "truncated_normal")

        # === Functional model ===
        inputs, outputs = gau_graph(
            unit,
            kernel_initializer.clone,
            table,
            policy,
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            hidden_dim=hidden_dim,
            embedding_dim=embedding_dim,
            num_segments=num_segments,
            dropout=dropout,
            epsilon=layer_norm_epsilon,
            with_mlm=with_mlm,
            custom_position_ids=custom_position_ids,
            application=application,
            residual=residual,
        )
        super().__init__(inputs, outputs, name=name)

        # === Config ===
        given = {key: value for key, value in unit.items() if key not in ("units", "rope")}
        keep_arguments(
            self,
            policy,
            trainable,
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            num_segments=num_segments,
            dropout=dropout,
            layer_norm_epsilon=layer_norm_epsilon,
            with_mlm=with_mlm,
            embedding_dim=embedding_dim,
            custom_position_ids=custom_position_ids,
            application=application,
            residual=residual,
            kernel_initializer=kernel_initializer,
            **given,
        )

    def get_config(self):
        return {
            **kept_config(self),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "attention_scale": scale_config(self.attention_scale),
        }
