import keras
from keras import ops

from keras_ext.layers.attention_arguments import (
    check_rotary,
    check_turned,
    restored_scale,
    scale_config,
)
from keras_ext.ops.attention_scale import get_attention_scale, scale_query_and_key
from keras_ext.ops.attention_scores import attention_scores
from keras_ext.ops.masking import mask_bias
from keras_ext.ops.rotary import apply_rotary
from keras_ext.ops.rows import as_rows, project_rows
from keras_ext.ops.visible_keys import count_keys, visible_keys


@keras.saving.register_keras_serializable(package="keras_ext")
class MultiHeadSelfAttention(keras.layers.Layer):
    """Each token gathers from all tokens, with weights of its own in each head.

        weights = softmax_j(scale q_i . k_j),  over the visible tokens j
        output_i = concat_heads(sum_j weights_ij v_j) W_o + b_o

    A padded token is never attended to; a token that may attend to none gives 0 before the output
    projection, not NaN. The softmax is taken in float32 whatever the compute dtype. With relative
    embeddings r, a vector for each pair of positions (NEZHA):

        weights = softmax_j(scale q_i . (k_j + r_ij)),  sum_j weights_ij (v_j + r_ij)

    On JAX, attention without dropout, relative embeddings and window is left to Keras' fused one,
    which takes a flash kernel where the device has one. On TensorFlow it has none and is slower
    than this (`benchmarks/fused_attention.py`).

    Weights are four 2-D kernels in the order query, key, value, output (bert4keras' order), each
    followed by its bias; heads lie one after another in the columns.

    Args:
        heads: int, number of heads.
        head_size: int, channels of a value in a head.
        key_size: int, channels of a query and a key in a head. None: `head_size`.
        output_dim: int, width of the output. None: `heads * head_size`.
        rope: bool, whether queries and keys are turned by rotary position embedding
            (interleaved, so `key_size` must be even). Defaults to False.
        use_bias: bool, whether the projections add a bias. Defaults to True.
        attention_dropout: float in [0, 1), dropout of the weights. Defaults to 0.
        kernel_initializer: initializer of the kernels. Defaults to "glorot_uniform".
        value_initializer: that of the kernels of values and output, or None for the same.
        attention_scale: True or "sqrt_dim" (1 / sqrt(key_size)), False (1), "log_n", "grad_max",
            "cosine", a number or a callable: `ops.get_attention_scale`. Defaults to True.
        causal: bool, whether a token sees only itself and those before. Defaults to False.
        rope_window: number, the distance from which `rope` turns no further (ReRoPE), or None.
        rope_slope: number in [0, 1), by which it still does (leaky ReRoPE). Defaults to 0.

    Call arguments:
        inputs: (b, n, d).
        mask: (b, n) bool, true = token. None: all are tokens.
        attention_mask: (b, n, n) or (1, n, n) bool, true where axis 1 may attend to axis 2, as
            `AttentionMask` makes it. None: everywhere.
        positions: (n,) or (b, n), integers or floats, that `rope` turns by. With `causal` and a
            window they must not fall. None: 0, ..., n - 1.
        relative_embeddings: (n, n, key_size), as `RelativePositionEmbedding` makes it; `key_size`
            is then `head_size`. None: none.

    Returns:
        (b, n, output_dim) in the compute dtype.

    Raises:
        ValueError: for an odd `key_size` with `rope`, sizes below 1, an unknown
            `attention_scale`, or a window or positions without `rope`.

    Example:

    >>> import numpy as np
    >>> layer = MultiHeadSelfAttention(heads=2, head_size=8, rope=True)
    >>> tuple(layer(np.ones((1, 5, 16), "float32")).shape)
    (1, 5, 16)

    Source: Ashish Vaswani et al., Attention Is All You Need, 2017,
    https://arxiv.org/abs/1706.03762
    """

    def __init__(
        self,
        heads,
        head_size,
        key_size=None,
        output_dim=None,
        rope=False,
        use_bias=True,
        attention_dropout=0.0,
        kernel_initializer="glorot_uniform",
        value_initializer=None,
        attention_scale=True,
        causal=False,
        rope_window=None,
        rope_slope=0.0,
        **kwargs,
    ):
        # Positions may be floats, which Keras would round to the compute dtype.
        super().__init__(autocast=False, **kwargs)
        sizes = (heads, head_size, key_size, output_dim)
        if any(size is not None and size < 1 for size in sizes):
            raise ValueError(
                "Sizes must be positive. "
                f"Received: {heads=}, {head_size=}, {key_size=}, {output_dim=}"
            )
        check_rotary(rope, key_size or head_size, rope_window, rope_slope)
        get_attention_scale(attention_scale)
        self.heads = heads
        self.head_size = head_size
        self.key_size = key_size
        self.output_dim = output_dim
        self.rope = rope
        self.use_bias = use_bias
        self.attention_dropout = attention_dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.value_initializer = keras.initializers.get(value_initializer)
        self.attention_scale = restored_scale(attention_scale)
        self.causal = causal
        self.rope_window = rope_window
        self.rope_slope = rope_slope
        first, last = self.kernel_initializer, self.value_initializer or self.kernel_initializer
        self.query_dense = self._projection("query", heads * self._key_size, first)
        self.key_dense = self._projection("key", heads * self._key_size, first)
        self.value_dense = self._projection("value", heads * head_size, last)
        self.output_dense = self._projection("output", output_dim or heads * head_size, last)
        # Of the weights before they are rounded: random bfloat16 numbers take longer to draw.
        self.dropout = keras.layers.Dropout(attention_dropout, dtype="float32", name="dropout")
        self.supports_masking = True

    @property
    def _key_size(self):
        return self.key_size or self.head_size

    def _projection(self, name, units, initializer):
        return keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=initializer.clone(),
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape):
        for dense in (self.query_dense, self.key_dense, self.value_dense):
            dense.build(input_shape)
        self.output_dense.build((*input_shape[:-1], self.heads * self.head_size))

    def _split_heads(self, rows, length, size):
        return ops.reshape(rows, (-1, length, self.heads, size))

    def call(
        self,
        inputs,
        mask=None,
        attention_mask=None,
        positions=None,
        relative_embeddings=None,
        training=None,
    ):
        check_turned(self.rope, positions)
        size, length = self._key_size, ops.shape(inputs)[1]
        rows = as_rows(ops.cast(inputs, self.compute_dtype))
        query = self._split_heads(self.query_dense(rows), length, size)
        key = self._split_heads(self.key_dense(rows), length, size)
        value = self._split_heads(self.value_dense(rows), length, self.head_size)
        visible = visible_keys(mask, attention_mask, self.causal, length)
        scale, keys = get_attention_scale(self.attention_scale), count_keys(visible, length)
        query, key = scale_query_and_key(query, key, scale, keys)
        if visible is not None:
            visible = ops.expand_dims(visible, 1)  # (b, 1, n, n), for all heads
        if relative_embeddings is None and self._is_fused(training):
            mixed = self._fused(query, key, value, visible, positions)
        else:
            turning = (self.rope, positions, self.rope_window, self.rope_slope, self.causal)
            scores = attention_scores(query, key, *turning)
            mixed = self._mixed(scores, query, value, visible, relative_embeddings, training)
        mixed = ops.reshape(mixed, (-1, length, self.heads * self.head_size))
        return project_rows(self.output_dense, mixed)

    def _is_fused(self, training):
        dropped = self.attention_dropout > 0 and training
        plain = not dropped and self.rope_window is None and self._key_size == self.head_size
        if not plain or keras.config.backend() != "jax":
            return False
        device = keras.distribution.list_devices()[0].partition(":")[0]
        # A CPU has no float16 products with float32 sums; on a TPU Keras 3.15 puts the mask of the
        # first sample on all of them.
        return device == "gpu" or (device == "cpu" and self.compute_dtype != "float16")

    def _fused(self, query, key, value, visible, positions):
        """Values gathered by Keras' fused attention, (b, n, heads, head_size)."""
        if self.rope:
            query, key = apply_rotary(query, positions), apply_rotary(key, positions)
        query, key = (ops.cast(x, self.compute_dtype) for x in (query, key))
        if visible is None:
            return ops.dot_product_attention(query, key, value, scale=1.0)
        # One row for all queries the flash kernel would refuse.
        size = ops.shape(key)[1]
        visible = ops.broadcast_to(visible, (ops.shape(visible)[0], 1, size, size))
        mixed = ops.dot_product_attention(query, key, value, mask=visible, scale=1.0)
        seen = ops.any(visible, axis=-1, keepdims=True)  # (b, 1, n, 1)
        return ops.where(ops.transpose(seen, (0, 2, 1, 3)), mixed, 0)

    def _mixed(self, scores, query, value, visible, relative_embeddings, training):
        """Values gathered by weights from scores (b, heads, n, n), (b, n, heads, head_size)."""
        if relative_embeddings is not None:
            relative = ops.cast(relative_embeddings, "float32")
            scores = scores + ops.einsum("bjhd,jkd->bhjk", query, relative)
        if visible is not None:
            scores = scores + mask_bias(visible)
        weights = self.dropout(ops.softmax(scores), training=training)
        weights = ops.cast(weights, self.compute_dtype)
        mixed = ops.matmul(weights, ops.transpose(value, (0, 2, 1, 3)))
        if relative_embeddings is not None:
            relative = ops.cast(relative_embeddings, self.compute_dtype)
            mixed = mixed + ops.einsum("bhjk,jkd->bhjd", weights, relative)
        if visible is not None:
            # Where all scores are masked, the softmax gives all the same weight.
            seen = ops.any(visible, axis=-1, keepdims=True)
            mixed = mixed * ops.cast(seen, self.compute_dtype)
        return ops.transpose(mixed, (0, 2, 1, 3))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.output_dim or self.heads * self.head_size)

    def get_config(self):
        return {
            **super().get_config(),
            "heads": self.heads,
            "head_size": self.head_size,
            "key_size": self.key_size,
            "output_dim": self.output_dim,
            "rope": self.rope,
            "use_bias": self.use_bias,
            "attention_dropout": self.attention_dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "value_initializer": keras.initializers.serialize(self.value_initializer),
            "attention_scale": scale_config(self.attention_scale),
            "causal": self.causal,
            "rope_window": self.rope_window,
            "rope_slope": self.rope_slope,
        }
