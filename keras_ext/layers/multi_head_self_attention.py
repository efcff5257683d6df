import keras
from keras import ops

from keras_ext.ops.masking import mask_bias
from keras_ext.ops.rotary import apply_rotary
from keras_ext.ops.rows import as_rows


@keras.saving.register_keras_serializable(package="keras_ext")
class MultiHeadSelfAttention(keras.layers.Layer):
    """Each token gathers from all tokens, with weights of its own in each head.

        weights = softmax_j(q_i . k_j / sqrt(head_size)),  over the tokens j
        output_i = concat_heads(sum_j weights_ij v_j) W_o + b_o

    A padded token is never attended to; a token that may attend to none gives 0 before the output
    projection, not NaN. The softmax is taken in float32 whatever the compute dtype. With relative
    embeddings r, a vector for each pair of positions (NEZHA):

        weights = softmax_j(q_i . (k_j + r_ij) / sqrt(key_size)),  sum_j weights_ij (v_j + r_ij)

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

    Call arguments:
        inputs: (b, n, d).
        mask: (b, n) bool, true = token. None: all are tokens.
        attention_mask: (b, n, n) or (1, n, n) bool, true where axis 1 may attend to axis 2, as
            `AttentionMask` makes it. None: everywhere.
        positions: (n,) or (b, n) int, the positions that `rope` turns by. None: 0, ..., n - 1.
        relative_embeddings: (n, n, key_size), as `RelativePositionEmbedding` makes it; `key_size`
            is then `head_size`. None: none.

    Returns:
        (b, n, output_dim) in the compute dtype.

    Raises:
        ValueError: for an odd `key_size` with `rope`, or sizes below 1.

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
        **kwargs,
    ):
        super().__init__(**kwargs)
        sizes = (heads, head_size, key_size, output_dim)
        if any(size is not None and size < 1 for size in sizes):
            raise ValueError(
                "Sizes must be positive. "
                f"Received: {heads=}, {head_size=}, {key_size=}, {output_dim=}"
            )
        if rope and (key_size or head_size) % 2:
            raise ValueError(
                "Rotary embedding turns channels in pairs, the size of keys must be even. "
                f"Received: {head_size=}, {key_size=}"
            )
        self.heads = heads
        self.head_size = head_size
        self.key_size = key_size
        self.output_dim = output_dim
        self.rope = rope
        self.use_bias = use_bias
        self.attention_dropout = attention_dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.query_dense = self._projection("query", heads * self._key_size)
        self.key_dense = self._projection("key", heads * self._key_size)
        self.value_dense = self._projection("value", heads * head_size)
        self.output_dense = self._projection("output", output_dim or heads * head_size)
        # Of the weights before they are rounded: random bfloat16 numbers take longer to draw.
        self.dropout = keras.layers.Dropout(attention_dropout, dtype="float32", name="dropout")
        self.supports_masking = True

    @property
    def _key_size(self):
        return self.key_size or self.head_size

    def _projection(self, name, units):
        return keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer.clone(),
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
        size, length = self._key_size, ops.shape(inputs)[1]
        rows = as_rows(inputs)
        query = self._split_heads(self.query_dense(rows), length, size)
        key = self._split_heads(self.key_dense(rows), length, size)
        value = self._split_heads(self.value_dense(rows), length, self.head_size)
        if self.rope:
            query, key = apply_rotary(query, positions), apply_rotary(key, positions)
        query, key, value = (ops.transpose(x, (0, 2, 1, 3)) for x in (query, key, value))
        # Rounded to bfloat16, a score of 20 would be off by up to 0.06, its weight by 6 %.
        query, key = ops.cast(query, "float32"), ops.cast(key, "float32")
        # Scaling the query costs n * d products, scaling the scores heads * n * n.
        query = query * size**-0.5
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))  # (b, heads, n, n)
        if relative_embeddings is not None:
            relative = ops.cast(relative_embeddings, "float32")
            scores = scores + ops.einsum("bhjd,jkd->bhjk", query, relative)
        visible = visible_keys(mask, attention_mask)
        if visible is not None:
            scores = scores + mask_bias(visible)
        weights = self.dropout(ops.softmax(scores), training=training)
        weights = ops.cast(weights, self.compute_dtype)
        mixed = ops.matmul(weights, value)  # (b, heads, n, head_size)
        if relative_embeddings is not None:
            relative = ops.cast(relative_embeddings, self.compute_dtype)
            mixed = mixed + ops.einsum("bhjk,jkd->bhjd", weights, relative)
        if visible is not None:
            # Where all scores are masked, the softmax gives all the same weight.
            seen = ops.any(visible, axis=-1, keepdims=True)
            mixed = mixed * ops.cast(seen, self.compute_dtype)
        mixed = ops.transpose(mixed, (0, 2, 1, 3))
        mixed = ops.reshape(mixed, (-1, length, self.heads * self.head_size))
        output = self.output_dense(as_rows(mixed))
        return ops.reshape(output, (-1, length, output.shape[-1]))

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
        }


def visible_keys(mask, attention_mask):
    """Which scores (b, heads, n, n) count, as a mask that broadcasts to them; None: all."""
    if mask is not None:
        mask = ops.expand_dims(mask, (1, 2))
    if attention_mask is not None:
        attention_mask = ops.expand_dims(attention_mask, 1)
    if mask is None or attention_mask is None:
        return attention_mask if mask is None else mask
    return ops.logical_and(mask, attention_mask)
