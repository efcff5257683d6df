import keras

from keras_ext import activations
from keras_ext.models.blocks import check_application, keep_arguments, kept_config
from keras_ext.models.gau_graph import gau_graph


@keras.saving.register_keras_serializable(package="keras_ext")
class GAUAlphaEncoder(keras.Model):
    """GAU-alpha: gated attention units in place of attention and feed-forward.

        x = RMS(dropout(token embedding + segment embedding))
        x = RMS(x + dropout(GAU(x))),  num_layers times

    The `GAUEncoder` that was pretrained: RMS(x) = x / sqrt(mean(x^2) + epsilon) has no weights and
    GAU is a `GatedAttentionUnit` without biases, normalised by "softmax_plus", its queries and keys
    turned by rotary position embedding. Two units have about the weights of one block of BERT, so a
    base model has 24. Weights begin with the variance 1 / (fan_in num_layers^(2/3)).

    A functional model; its layers bear bert4keras' names. Freezing single layers is not part of
    the config, freezing all of them (`trainable`) is.

    Args:
        vocabulary_size: int, number of token ids.
        num_layers: int, number of blocks.
        hidden_dim: int, width of the blocks and the output.
        intermediate_dim: int, width inside the units, often twice `hidden_dim`.
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
        ValueError: if `key_size` is odd; for "unilm" without segments.

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
        dtype=None,
        name=None,
        trainable=True,
    ):
        check_application(application, num_segments)
        policy = keras.dtype_policies.get(dtype)
        activation = activations.get(activation)
        scale = num_layers ** (-2 / 3)

        # === Layers ===
        def kernel():
            return keras.initializers.VarianceScaling(scale, "fan_in", "truncated_normal")

        def table():
            return keras.initializers.VarianceScaling(scale, "fan_out", "truncated_normal")

        unit = {
            "units": intermediate_dim,
            "key_size": key_size,
            "activation": activation,
            "use_bias": False,
            "normalization": "softmax_plus",
            "attention_dropout": attention_dropout,
            "rope": True,
        }

        # === Functional model ===
        inputs, outputs = gau_graph(
            unit,
            kernel,
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
        )
        super().__init__(inputs, outputs, name=name)

        # === Config ===
        keep_arguments(
            self,
            policy,
            trainable,
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            key_size=key_size,
            num_segments=num_segments,
            dropout=dropout,
            attention_dropout=attention_dropout,
            activation=activation,
            layer_norm_epsilon=layer_norm_epsilon,
            with_mlm=with_mlm,
            embedding_dim=embedding_dim,
            custom_position_ids=custom_position_ids,
            application=application,
        )

    def get_config(self):
        return kept_config(self)
