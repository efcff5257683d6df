import keras
from keras import ops

from keras_ext import activations
from keras_ext.layers.attention_arguments import (
    check_rotary,
    check_turned,
    restored_scale,
    scale_config,
)
from keras_ext.layers.scale_offset import ScaleOffset
from keras_ext.ops.attention_normalization import NORMALIZATIONS, score_factor, weigh_scores
from keras_ext.ops.attention_scale import LogN, get_attention_scale, scale_query_and_key
from keras_ext.ops.attention_scores import attention_scores
from keras_ext.ops.rows import project_rows
from keras_ext.ops.visible_keys import count_keys, visible_keys

SCORE_SCALES = ("bert4keras", "paper")


@keras.saving.register_keras_serializable(package="keras_ext")
class GatedAttentionUnit(keras.layers.Layer):
    """Attention with one head and a gate, in place of an attention and a feed-forward block.

        u, v, z = split(activation(x W + b)),  of units, units and key_size channels
        q, k = gamma_q * z + beta_q, gamma_k * z + beta_k
        weights = normalize(scale q_i . k_j),  over the l visible tokens j
        output_i = (u_i * sum_j weights_ij v_j) W_o + b_o

        "squared_relu":  weights = relu(scale q_i . k_j)^2 / l,  with score_scale="paper"
                         relu(q_i . k_j / l)^2
        "softmax_plus":  the softmax of scale q_i . k_j log(max(l, 16)) / log(512)

    The width of the output is that of the input. Weights in the order input, beta and gamma of the
    query, of the key, output (that of bert4keras since 0.11.4). W is one kernel: three of their own
    would begin far larger.

    With `self_attention=False` queries, keys and values come from sequences of their own:

        u, q = split(activation(x_q W_q + b_q)),  k = activation(x_k W_k + b_k),
        v = activation(x_v W_v + b_v)

    A hidden token is never attended to; where a row sees none, the sum is 0, not NaN. Scores and
    weights are computed in float32 whatever the compute dtype.

    Args:
        units: int, channels of the gate and of the values; twice the input's width is usual.
        key_size: int, channels of queries and keys. Defaults to 128.
        activation: name or function, after the input projections. Defaults to "swish".
        use_bias: bool, whether projections add a bias, and queries and keys a beta. Defaults to
            True.
        normalization: "squared_relu", "softmax_plus" or "softmax". Defaults to "squared_relu".
        self_attention: bool, whether all come from one sequence. Defaults to True.
        attention_scale: True or "sqrt_dim" (1 / sqrt(key_size)), False (1), "log_n", "grad_max",
            "cosine", a number or a callable: `ops.get_attention_scale`. Defaults to True.
        attention_dropout: float in [0, 1), dropout of the weights, or None for 0. Defaults to 0.
        kernel_initializer: initializer of the kernels. Defaults to "glorot_uniform".
        rope: bool, whether queries and keys are turned by rotary position embedding
            (interleaved, so `key_size` must be even). Defaults to False.
        causal: bool, whether a token sees only itself and those before. Defaults to False.
        length_norm: number that "squared_relu" takes for l, such as the length in training, or
            None for the number of visible tokens of each row. Defaults to None.
        score_scale: "bert4keras" or "paper", for "squared_relu". Defaults to "bert4keras".
        rope_window: number, the distance from which `rope` turns no further (ReRoPE), or None.
        rope_slope: number in [0, 1), by which it still does (leaky ReRoPE). Defaults to 0.

    Call arguments:
        inputs: (b, n, d), or without `self_attention` a list of query (b, n, d), key (b, m, d_k)
            and value (b, m, d_v). Below, m = n with `self_attention`.
        mask: (b, m) bool, the keys that are tokens. A list of masks, such as Keras makes of those
            of a list of inputs, holds it as the second. None: all are tokens.
        attention_mask: (b, n, m) or (1, n, m) bool, the keys that each query may see. None: all.
        positions: (n,) or (b, n), integers or floats, for `rope`; n = m. With `causal` and a window
            they must not fall. None: 0, 1, 2, ... for queries, and for keys.

    Returns:
        (b, n, d) in the compute dtype.

    Raises:
        ValueError: for an odd `key_size` with `rope`, sizes below 1, an unknown or contradictory
            choice, positions without `rope`, or inputs that are not one tensor (without
            `self_attention`: a list of three).

    Example:

    >>> import numpy as np
    >>> layer = GatedAttentionUnit(units=16, key_size=8, normalization="softmax_plus", rope=True)
    >>> tuple(layer(np.ones((1, 5, 6), "float32")).shape)
    (1, 5, 6)

    Source: Weizhe Hua et al., Transformer Quality in Linear Time, 2022,
    https://arxiv.org/abs/2202.10447; https://kexue.fm/archives/8934
    """

    def __init__(
        self,
        units,
        key_size=128,
        activation="swish",
        use_bias=True,
        normalization="squared_relu",
        self_attention=True,
        attention_scale=True,
        attention_dropout=0.0,
        kernel_initializer="glorot_uniform",
        rope=False,
        causal=False,
        length_norm=None,
        score_scale="bert4keras",
        rope_window=None,
        rope_slope=0.0,
        **kwargs,
    ):
        # Positions may be floats, which Keras would round to the compute dtype.
        super().__init__(autocast=False, **kwargs)
        self.units = units
        self.key_size = key_size
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.normalization = normalization
        self.self_attention = self_attention
        self.attention_scale = restored_scale(attention_scale)
        self.attention_dropout = attention_dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.rope = rope
        self.causal = causal
        self.length_norm = length_norm
        self.score_scale = score_scale
        self.rope_window = rope_window
        self.rope_slope = rope_slope
        _check_arguments(self)
        policy = self.dtype_policy
        if self_attention:
            self.input_dense = self._dense(2 * units + key_size, "input")
            self.query_scale_offset = ScaleOffset(offset=use_bias, dtype=policy, name="query")
            self.key_scale_offset = ScaleOffset(offset=use_bias, dtype=policy, name="key")
        else:
            self.query_gate_dense = self._dense(units + key_size, "query_gate")
            self.key_dense = self._dense(key_size, "key")
            self.value_dense = self._dense(units, "value")
        self.dropout = keras.layers.Dropout(attention_dropout or 0.0, dtype=policy, name="dropout")
        self.supports_masking = True

    def _dense(self, units, name):
        return keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape):
        self._check_inputs(input_shape)
        query_shape = input_shape if self.self_attention else input_shape[0]
        if self.self_attention:
            self.input_dense.build(input_shape)
            for part in (self.query_scale_offset, self.key_scale_offset):
                part.build((*input_shape[:-1], self.key_size))
        else:
            parts = (self.query_gate_dense, self.key_dense, self.value_dense)
            for dense, shape in zip(parts, input_shape, strict=True):
                dense.build(shape)
        # Its width is the width of the input, known only here.
        self.output_dense = self._dense(query_shape[-1], "output")
        self.output_dense.build((*query_shape[:-1], self.units))

    def _check_inputs(self, shape):
        nested = [isinstance(part, (list, tuple)) for part in shape]
        if self.self_attention and any(nested):
            raise ValueError(
                "Expected one tensor; self_attention=False takes a list of query, key and value. "
                f"Received: {len(shape)} inputs"
            )
        if not self.self_attention and nested != [True] * 3:
            raise ValueError(
                "With self_attention=False, expected a list of query, key and value. "
                f"Received: input_shape={shape}"
            )

    def _project(self, inputs):
        """Query, key, value and gate, (b, n, key_size or units) each; the gate not yet active."""
        active = self.activation
        inputs = keras.tree.map_structure(lambda x: ops.cast(x, self.compute_dtype), inputs)
        # Activated part by part, the gradient needs no more arrays as wide as all three.
        if self.self_attention:
            projected, size = project_rows(self.input_dense, inputs), 2 * self.units
            gate, value, shared = ops.split(projected, [self.units, size], axis=-1)
            shared = active(shared)
            query, key = self.query_scale_offset(shared), self.key_scale_offset(shared)
            return query, key, active(value), gate
        query, key, value = inputs
        projected = project_rows(self.query_gate_dense, query)
        gate, query = ops.split(projected, [self.units], axis=-1)
        key, value = project_rows(self.key_dense, key), project_rows(self.value_dense, value)
        return active(query), active(key), active(value), gate

    def call(self, inputs, mask=None, attention_mask=None, positions=None, training=None):
        check_turned(self.rope, positions)
        query, key, value, gate = self._project(inputs)
        size = ops.shape(key)[1]
        check_positions(positions, query.shape, key.shape)
        visible = visible_keys(mask, attention_mask, self.causal, size)
        keys = count_keys(visible, size)
        paper = self.score_scale == "paper"
        scale = 1.0 if paper else get_attention_scale(self.attention_scale)
        query, key = scale_query_and_key(query, key, scale, keys)
        power = 2 if paper else 1
        query = query * score_factor(keys, self.normalization, self.length_norm, power)
        turning = (self.rope, positions, self.rope_window, self.rope_slope, self.causal)
        scores = attention_scores(query, key, *turning)  # (b, n, m)
        weights = weigh_scores(scores, visible, self.normalization)
        weights = self.dropout(ops.cast(weights, self.compute_dtype), training=training)
        mixed = self.activation(gate) * ops.matmul(weights, value)
        return project_rows(self.output_dense, mixed)

    def compute_mask(self, inputs, mask=None):
        if self.self_attention:
            return mask
        # The output has the time axis of the queries, of which one mask of keys says nothing.
        return mask[0] if isinstance(mask, (list, tuple)) else None

    def compute_output_shape(self, input_shape):
        self._check_inputs(input_shape)
        return tuple(input_shape if self.self_attention else input_shape[0])

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "key_size": self.key_size,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "normalization": self.normalization,
            "self_attention": self.self_attention,
            "attention_scale": scale_config(self.attention_scale),
            "attention_dropout": self.attention_dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "rope": self.rope,
            "causal": self.causal,
            "length_norm": self.length_norm,
            "score_scale": self.score_scale,
            "rope_window": self.rope_window,
            "rope_slope": self.rope_slope,
        }


def _check_arguments(layer):
    """Raises ValueError unless the arguments of a `GatedAttentionUnit` go together."""
    units, key_size, scale = layer.units, layer.key_size, layer.attention_scale
    normalization, length_norm = layer.normalization, layer.length_norm
    score_scale = layer.score_scale
    if units < 1 or key_size < 1:
        raise ValueError(f"Sizes must be positive. Received: {units=}, {key_size=}")
    check_rotary(layer.rope, key_size, layer.rope_window, layer.rope_slope)
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"Unknown normalization, expected one of {NORMALIZATIONS}. Received: {normalization=}"
        )
    if score_scale not in SCORE_SCALES:
        raise ValueError(
            f"Unknown score_scale, expected one of {SCORE_SCALES}. Received: {score_scale=}"
        )
    if layer.causal and not layer.self_attention:
        raise ValueError(
            "Queries and keys of two sequences have no common order. "
            "Received: causal=True, self_attention=False"
        )
    if length_norm is not None and not length_norm > 0:
        raise ValueError(f"length_norm must be above 0. Received: {length_norm=}")
    if normalization != "squared_relu" and (length_norm or score_scale != "bert4keras"):
        raise ValueError(
            "length_norm and score_scale are options of normalization='squared_relu'. "
            f"Received: {normalization=}, {length_norm=}, {score_scale=}"
        )
    if score_scale == "paper" and scale is not True:
        raise ValueError(
            f"score_scale='paper' takes the place of attention_scale. Received: {scale=}"
        )
    if isinstance(get_attention_scale(scale), LogN) and normalization == "softmax_plus":
        raise ValueError(f"'softmax_plus' has a factor log n of its own. Received: {scale=}")


def check_positions(positions, query_shape, key_shape):
    """Raises ValueError if one list of positions cannot serve queries and keys."""
    lengths = (query_shape[1], key_shape[1])
    if positions is not None and None not in lengths and lengths[0] != lengths[1]:
        raise ValueError(
            "Positions are those of queries and keys, which must be as many then. "
            f"Received: {lengths[0]} queries, {lengths[1]} keys"
        )
