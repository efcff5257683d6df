import keras
from keras import ops

from keras_ext.ops.masking import masked_softmax
from keras_ext.ops.rotary import apply_rotary


@keras.saving.register_keras_serializable(package="keras_ext")
class MultiHeadSelfAttention(keras.layers.Layer):
    """Each token gathers from all tokens, with weights of its own in each head.

        weights = softmax_j(q_i . k_j / sqrt(head_size)),  over the tokens j
        output_i = concat_heads(sum_j weights_ij v_j) W_o + b_o

    A padded token is never attended to; a sequence without tokens gives 0 before the output
    projection, not NaN. The softmax is taken in float32 whatever the compute dtype.

    Weights are four 2-D kernels in the order query, key, value, output (bert4keras' order), each
    followed by its bias; heads lie one after another in the columns.

    Args:
        heads: int, number of heads.
        head_size: int, channels of a head. The width of the output is `heads * head_size`.
        rope: bool, whether queries and keys are turned by rotary position embedding
            (interleaved, so `head_size` must be even). Defaults to False.
        use_bias: bool, whether the projections add a bias. Defaults to True.
        attention_dropout: float in [0, 1), dropout of the weights. Defaults to 0.
        kernel_initializer: initializer of the kernels. Defaults to "glorot_uniform".

    Call arguments:
        inputs: (b, n, d).
        mask: (b, n) bool, true = token. None: all are tokens.

    Returns:
        (b, n, heads * head_size) in the compute dtype.

    Raises:
        ValueError: for an odd `head_size` with `rope`, or sizes below 1.

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
        rope=False,
        use_bias=True,
        attention_dropout=0.0,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if heads < 1 or head_size < 1:
            raise ValueError(f"Sizes must be positive. Received: {heads=}, {head_size=}")
        if rope and head_size % 2:
            raise ValueError(
                f"Rotary embedding turns channels in pairs, head_size must be even. "
                f"Received: {head_size=}"
            )
        self.heads = heads
        self.head_size = head_size
        self.rope = rope
        self.use_bias = use_bias
        self.attention_dropout = attention_dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.query_dense = self._projection("query")
        self.key_dense = self._projection("key")
        self.value_dense = self._projection("value")
        self.output_dense = self._projection("output")
        self.dropout = keras.layers.Dropout(
            attention_dropout, dtype=self.dtype_policy, name="dropout"
        )
        self.supports_masking = True

    def _projection(self, name):
        return keras.layers.Dense(
            self.heads * self.head_size,
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape):
        for dense in (self.query_dense, self.key_dense, self.value_dense):
            dense.build(input_shape)
        self.output_dense.build((*input_shape[:-1], self.heads * self.head_size))

    def _split_heads(self, x):
        return ops.reshape(x, (-1, ops.shape(x)[1], self.heads, self.head_size))

    def call(self, inputs, mask=None, training=None):
        # Scaling the query costs n * d products, scaling the scores heads * n * n.
        query = self._split_heads(self.query_dense(inputs) * self.head_size**-0.5)
        key = self._split_heads(self.key_dense(inputs))
        value = self._split_heads(self.value_dense(inputs))
        if self.rope:
            query, key = apply_rotary(query), apply_rotary(key)
        query = ops.transpose(query, (0, 2, 1, 3))  # (b, heads, n, head_size)
        key = ops.transpose(key, (0, 2, 3, 1))  # (b, heads, head_size, n)
        value = ops.transpose(value, (0, 2, 1, 3))
        # Rounded to bfloat16, a score of 20 would be off by up to 0.06, its weight by 6 %.
        query, key = ops.cast(query, "float32"), ops.cast(key, "float32")
        scores = ops.matmul(query, key)  # (b, heads, n, n)
        if mask is not None:
            mask = ops.expand_dims(mask, (1, 2))
        weights = ops.cast(masked_softmax(scores, mask), self.compute_dtype)
        weights = self.dropout(weights, training=training)
        mixed = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
        shape = (-1, ops.shape(mixed)[1], self.heads * self.head_size)
        return self.output_dense(ops.reshape(mixed, shape))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.heads * self.head_size)

    def get_config(self):
        return {
            **super().get_config(),
            "heads": self.heads,
            "head_size": self.head_size,
            "rope": self.rope,
            "use_bias": self.use_bias,
            "attention_dropout": self.attention_dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
