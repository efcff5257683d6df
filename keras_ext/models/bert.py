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
    transformer_blocks,
)
from keras_ext.models.embeddings import embed, position_embedding, token_embedding
from keras_ext.models.heads import bert_heads


@keras.saving.register_keras_serializable(package="keras_ext")
class BertEncoder(keras.Model):
    """BERT: token ids in, a vector for each token out.

        x = dropout(LN(token embedding + segment embedding + position embedding))
        x = LN(x + dropout(attention(x)));  x = LN(x + dropout(feed_forward(x)));  num_layers times

    A functional model; its layers bear bert4keras' names. Freezing single layers is not part of
    the config, freezing all of them (`trainable`) is.

    Args:
        vocabulary_size: int, number of token ids.
        num_layers: int, number of blocks.
        num_heads: int, attention heads; divides `hidden_dim` unless `head_size` is given.
        hidden_dim: int, width of the blocks and the output.
        intermediate_dim: int, width inside the feed-forward.
        max_sequence_length: int, the longest input. Defaults to 512.
        num_segments: int, number of segment ids; 0: no input `segment_ids`. Defaults to 2.
        dropout: float in [0, 1), after the embeddings and each layer. Defaults to 0.1.
        attention_dropout: float in [0, 1), on the attention weights. Defaults to 0.1.
        activation: name or function. Defaults to "gelu" (by the error function); "gelu_tanh" is
            the approximation that Google's own code uses.
        layer_norm_epsilon: float. Defaults to 1e-12; statistics are float32 in every precision.
        with_pool: bool or name of an activation (True: "tanh"), whether to output a vector of the
            sentence, too. Defaults to False.
        with_nsp: bool, whether to output next sentence probabilities, too. Defaults to False.
        with_mlm: bool or name of an activation (True: "softmax"; "linear" gives logits), whether
            to output a score of each id for each token, too. Defaults to False.
        embedding_dim: int, width of the embeddings. None: `hidden_dim`.
        head_size: int, channels of a head. None: `hidden_dim / num_heads`.
        key_size: int, channels of a query and a key in a head. None: those of a head.
        hierarchical_position: float in (0, 1): positions up to `max_sequence_length` squared, see
            `PositionEmbedding`. Defaults to None.
        custom_position_ids: bool, whether positions are an input, too. Defaults to False.
        application: "encoder"; "lm": a token sees those before it; "unilm": segment 0 sees
            itself, segment 1 what stands before. Defaults to "encoder".
        residual: "post"; "pre": norms stand before the layers and at the output, none after the
            embeddings; "deepnorm": post-norm for very deep encoders, with the paper's
            `deepnorm_constants`; kernels begin as Xavier's. Files of other programs serve "post"
            only. Defaults to "post".
        column_dropout: float in [0, 1), share of the tokens that attention does not see in training,
            in no layer (`DropToken`). The first token stays. Defaults to 0.
        dtype: dtype policy of all layers, or its name. Defaults to the global policy.
        name: name of the model.
        trainable: bool. False freezes the model. Defaults to True.

    Call arguments:
        inputs: dict of `token_ids` and `segment_ids` (b, n) int32 and `padding_mask` (b, n) bool,
            true = token; with `custom_position_ids` also `position_ids` (b, n) float32.

    Returns:
        (b, n, hidden_dim) in the compute dtype. With heads a dict of that as `sequence_output` and,
        as present, `pooled_output` (b, hidden_dim), `nsp` (b, 2) float32 and `mlm`
        (b, n, vocabulary_size) float32.

    Raises:
        ValueError: if `num_heads` does not divide `hidden_dim`; for "unilm" without segments; when
            called on more than `max_sequence_length` tokens (see `PositionEmbedding` for compiled
            functions).

    Attributes:
        blocks: tuple of the blocks, one for each of `num_layers`. A block has `layers`, a tuple of
            its layers, the attention first, and `output`, a symbolic tensor (b, n, hidden_dim), for
            models that read what stands between the blocks or treat blocks unlike. It is no part of
            the config or of saved files: every encoder that is made or loaded has its own. What
            `keras.models.clone_model` gives is a plain functional model, without it.

    Example:

    >>> import numpy as np
    >>> encoder = BertEncoder(
    ...     vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32
    ... )
    >>> ids = np.array([[7, 8, 9, 0]])
    >>> batch = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids > 0}
    >>> tuple(encoder(batch).shape)
    (1, 4, 16)
    >>> hidden_states = keras.Model(encoder.input, [block.output for block in encoder.blocks])
    >>> len(hidden_states(batch))
    1
    >>> encoder.blocks[0].layers[0].trainable = False
    >>> [weight.path for weight in encoder.trainable_weights if "Attention/" in weight.path]
    []

    Source: Jacob Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers for
    Language Understanding, 2018, https://arxiv.org/abs/1810.04805
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
        embedding_dim=None,
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

        # === Functional model ===
        inputs = encoder_inputs(num_segments, custom_position_ids)
        x = embed(inputs, tokens, num_segments, hidden_dim, joined, positions)
        mask, visible = key_mask(inputs, column_dropout), attention_mask(inputs, application)
        blocks = transformer_blocks(num_layers, joined, attention, feed_forward)
        x, passed = stack(x, blocks, joined, mask=mask, attention_mask=visible)
        outputs = bert_heads(x, tokens, activation, joined, with_pool, with_nsp, with_mlm)
        super().__init__(inputs, outputs, name=name)
        self.blocks = passed
        keep_arguments(self, arguments)

    def get_config(self):
        return kept_config(self)
