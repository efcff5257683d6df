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
from keras_ext.ops.attention_normalization import score_factor
from keras_ext.ops.attention_scale import get_attention_scale, scale_query_and_key
from keras_ext.ops.rotary import apply_rotary
from keras_ext.ops.rows import project_rows

PROJECTIONS = ("quadratic_query", "quadratic_key", "linear_query", "linear_key")


@keras.saving.register_keras_serializable(package="keras_ext")
class MixedChunkAttention(keras.layers.Layer):
    """A gated attention unit whose cost grows with the length, not with its square (FLASH).

    The sequence is cut into chunks. Within its chunk a token attends by squared relu, across the
    chunks by linear attention:

        u, v, z = split(activation(x W + b)),  of units, units and key_size channels
        q, k, q', k' = gamma * z + beta,  each with a gamma and a beta of its own
        near_i = sum_j max(scale q_i . k_j, 0)^2 v_j / near,  j in the chunk of i
        far_i = q'_i (sum_j k'_j^T v_j) / far,  j in the whole sequence
        output_i = (u_i * (near_i + far_i)) W_o + b_o

    with `near` and `far` the number of tokens that each sum runs over. With `causal` they are
    j <= i in the chunk of i, and all j in the chunks before it: no token changes an output before
    it, not by a bit. The width of the output is that of the input. Weights in the order input,
    beta and gamma of q, k, q' and k', output.

    The length need not be a multiple of the chunk: the last chunk is filled up inside, and only
    tokens are counted. A hidden token is never attended to; where a sum has no token, it is 0,
    not NaN. Scores, weights and sums over tokens are float32 whatever the compute dtype.

    Args:
        units: int, channels of the gate and of the values; twice the input's width is usual.
        key_size: int, channels of queries and keys. Defaults to 128.
        chunk_size: int, tokens of a chunk. Defaults to 256.
        causal: bool, whether a token sees only itself and those before it. Defaults to False.
        activation: name or function, after the input projection. Defaults to "swish".
        use_bias: bool, whether projections add a bias, and queries and keys a beta. Defaults to
            True.
        attention_scale: that of the scores within a chunk, by the number of keys that a token sees
            there: True or "sqrt_dim" (1 / sqrt(key_size)), False (1), "log_n", "grad_max",
            "cosine", a number or a callable: `ops.get_attention_scale`. Defaults to True.
        attention_dropout: float in [0, 1), dropout of the weights within a chunk. Defaults to 0.
        rope: bool, whether all four of queries and keys are turned by rotary position embedding
            (interleaved, so `key_size` must be even). Defaults to False.
        kernel_initializer: initializer of the kernels. Defaults to "glorot_uniform".

    Call arguments:
        inputs: (b, n, d).
        mask: (b, n) bool, true = token. None: all are tokens.
        positions: (n,) or (b, n) integers or floats, for `rope`. None: 0, 1, 2, ...

    Returns:
        (b, n, d) in the compute dtype.

    Raises:
        ValueError: for an odd `key_size` with `rope`, positions without it, sizes below 1, or an
            unknown `attention_scale`.

    Example:

    >>> import numpy as np
    >>> layer = MixedChunkAttention(units=16, key_size=8, chunk_size=4, causal=True, rope=True)
    >>> tuple(layer(np.ones((1, 10, 6), "float32")).shape)
    (1, 10, 6)

    Source: Weizhe Hua et al., Transformer Quality in Linear Time, 2022,
    https://arxiv.org/abs/2202.10447; https://kexue.fm/archives/8934
    """

    def __init__(
        self,
        units,
        key_size=128,
        chunk_size=256,
        causal=False,
        activation="swish",
        use_bias=True,
        attention_scale=True,
        attention_dropout=0.0,
        rope=False,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        # Keras would round float positions to the compute dtype.
        super().__init__(autocast=False, **kwargs)
        if units < 1 or key_size < 1 or chunk_size < 1:
            raise ValueError(
                f"Sizes must be positive. Received: {units=}, {key_size=}, {chunk_size=}"
            )
        check_rotary(rope, key_size)
        get_attention_scale(attention_scale)
        self.units = units
        self.key_size = key_size
        self.chunk_size = chunk_size
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.causal = causal
        self.attention_scale = restored_scale(attention_scale)
        self.attention_dropout = attention_dropout
        self.rope = rope
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.input_dense = self._dense(2 * units + key_size, "input", self.activation)
        self.scale_offsets = [
            ScaleOffset(offset=use_bias, dtype=self.dtype_policy, name=name) for name in PROJECTIONS
        ]
        # Of the weights before they are rounded: random bfloat16 numbers take longer to draw.
        self.dropout = keras.layers.Dropout(attention_dropout, dtype="float32", name="dropout")
        self.supports_masking = True

    def _dense(self, units, name, activation=None):
        return keras.layers.Dense(
            units,
            activation=activation,
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape):
        self.input_dense.build(input_shape)
        for scale_offset in self.scale_offsets:
            scale_offset.build((*input_shape[:-1], self.key_size))
        # Its width is the width of the input, known only here.
        self.output_dense = self._dense(input_shape[-1], "output")
        self.output_dense.build((*input_shape[:-1], self.units))

    def call(self, inputs, mask=None, positions=None, training=None):
        check_turned(self.rope, positions)
        inputs = ops.cast(inputs, self.compute_dtype)
        length = ops.shape(inputs)[1]
        projected = project_rows(self.input_dense, inputs)
        gate, value, shared = ops.split(projected, [self.units, 2 * self.units], axis=-1)
        projected = ops.stack([part(shared) for part in self.scale_offsets], axis=2)
        projected = ops.cast(projected, "float32")  # (b, n, 4, key_size)
        if self.rope:
            projected = apply_rotary(projected, positions)
        query, key, far_query, far_key = ops.unstack(projected, axis=2)
        tokens = ops.ones((1, length), "bool") if mask is None else ops.cast(mask, "bool")
        tokens = ops.expand_dims(tokens, -1)  # (b or 1, n, 1)
        # A key of zeros has weight 0 in both sums: no score needs a mask.
        key, far_key = (ops.where(tokens, x, 0.0) for x in (key, far_key))
        value = ops.where(tokens, ops.cast(value, "float32"), 0.0)
        tokens = ops.cast(tokens, "float32")
        parts = (query, key, far_query, far_key, value, tokens)
        query, key, far_query, far_key, value, tokens = self._chunks(parts, length)
        mixed = self._near(query, key, value, tokens, training)
        mixed = mixed + self._far(far_query, far_key, value, tokens)  # (b, chunks, c, units)
        chunks, size = ops.shape(mixed)[1:3]
        mixed = ops.reshape(mixed, (-1, chunks * size, self.units))[:, :length]
        gated = ops.cast(ops.cast(gate, "float32") * mixed, self.compute_dtype)
        return project_rows(self.output_dense, gated)

    def _chunks(self, parts, length):
        """Each of `parts`, (b, n, channels), as (b, chunks, c, channels), filled up with zeros."""
        size = self.chunk_size
        if isinstance(length, int):
            size = max(min(size, length), 1)
        chunks = (length + size - 1) // size
        missing = chunks * size - length
        for x in parts:
            batch, _, channels = ops.shape(x)
            if not isinstance(missing, int) or missing:
                filling = ops.zeros((batch, missing, channels), x.dtype)
                x = ops.concatenate((x, filling), axis=1)
            yield ops.reshape(x, (batch, chunks, size, channels))

    def _near(self, query, key, value, tokens, training):
        """The sums within the chunks, (b, chunks, c, units)."""
        seen = ops.cumsum(tokens, axis=2) if self.causal else ops.sum(tokens, 2, keepdims=True)
        query, key = scale_query_and_key(
            query, key, get_attention_scale(self.attention_scale), seen
        )
        # Scaling the query costs n * s products, scaling the weights n * c.
        query = query * score_factor(seen, "squared_relu")
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))  # (b, chunks, c, c)
        weights = ops.square(ops.relu(ops.tril(scores) if self.causal else scores))
        return ops.matmul(self.dropout(weights, training=training), value)

    def _far(self, query, key, value, tokens):
        """The sums across the chunks, (b, chunks, c, units)."""
        if not self.causal:
            seen = ops.sum(tokens, axis=(1, 2), keepdims=True)
            state = ops.einsum("bgcs,bgce->bse", key, value)
            return ops.einsum("bgcs,bse->bgce", query / ops.maximum(seen, 1.0), state)
        seen = sum_of_earlier(ops.sum(tokens, axis=2, keepdims=True))
        states = sum_of_earlier(ops.matmul(ops.transpose(key, (0, 1, 3, 2)), value))
        return ops.matmul(query / ops.maximum(seen, 1.0), states)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "key_size": self.key_size,
            "chunk_size": self.chunk_size,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "causal": self.causal,
            "attention_scale": scale_config(self.attention_scale),
            "attention_dropout": self.attention_dropout,
            "rope": self.rope,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def sum_of_earlier(chunks):
    """For each chunk (axis 1) the sum of those before it.

    Shifted, not the running sum minus the chunk itself: what rounding left of the chunk would
    leak into its own past.
    """
    sums = ops.cumsum(chunks, axis=1)
    return ops.concatenate((ops.zeros_like(sums[:, :1]), sums[:, :-1]), axis=1)
