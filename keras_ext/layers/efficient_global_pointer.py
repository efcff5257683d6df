import math

import keras
from keras import ops

from keras_ext.layers.global_pointer import check_heads
from keras_ext.ops import apply_rotary, dense_span_scores, mask_scores


@keras.saving.register_keras_serializable(package="keras_ext")
class EfficientGlobalPointer(keras.layers.Layer):
    """Scores every (start, end) pair for each entity type, with one query and key for all types.

        [q_i; k_i] = W x_i + b
        s_h(i, j) = (R_i q_i) . (R_j k_j) / sqrt(head_size) + a_h(i) + c_h(j)
        a_h(i) = (u_h . [q_i; k_i] + b_h) / 2,   c_h(j) = (v_h . [q_j; k_j] + d_h) / 2

    with the rotary embedding R. The first term finds entities, the biases tell their type. A pair
    is an entity of type h where its score is above 0.

    With `factored=True` the layer returns the factors instead of the scores. The loss
    (`FactoredGlobalPointerCrossentropy`), the metric (`SpanF1(factored=True)`) and the decoding
    (`entities.decode_factored_spans`) work on them at a cost that hardly grows with the number of types.

    Args:
        heads: int, the number of entity types.
        head_size: int, the width of query and key; even where `rope` is used.
        rope: bool, whether rotary positions are used.
        use_bias: bool, whether the projections have a bias.
        tril_mask: bool, whether pairs with end < start are masked. The factors do not hold this
            mask: what reads them takes the same argument.
        kernel_initializer: the initializer of the projections.
        factored: bool, whether to return the factors.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: (batch, length, dim).
        mask: boolean (batch, length), true = token. None: all are tokens.

    Output shape:
        (batch, heads, length, length), axis 2 the start, axis 3 the end, -1e30 at masked pairs;
        or with `factored=True` (batch, length, 2 * (head_size + heads)): the turned query divided
        by sqrt(head_size), the turned key, the start biases, the end biases; -1e30 in the biases
        of padding. Always float32.

    Raises:
        ValueError: for heads or head_size below 1, an odd head_size with `rope`, or inputs of
            another rank.

    Example:

    >>> import numpy as np
    >>> inputs = np.zeros((2, 5, 16), "float32")
    >>> tuple(EfficientGlobalPointer(heads=3, head_size=8)(inputs).shape)
    (2, 3, 5, 5)
    >>> tuple(EfficientGlobalPointer(heads=3, head_size=8, factored=True)(inputs).shape)
    (2, 5, 22)

    Source: Jianlin Su, Efficient GlobalPointer: fewer parameters, more effect, 2022,
    https://kexue.fm/archives/8877
    """

    def __init__(
        self,
        heads,
        head_size=64,
        rope=True,
        use_bias=True,
        tril_mask=True,
        kernel_initializer="lecun_normal",
        factored=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_heads(heads, head_size, rope)
        self.heads = heads
        self.head_size = head_size
        self.rope = rope
        self.use_bias = use_bias
        self.tril_mask = tril_mask
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.factored = factored
        self.p_dense = keras.layers.Dense(
            2 * head_size,
            use_bias=use_bias,
            kernel_initializer=self.kernel_initializer,
            dtype=self.dtype_policy,
            name="p_dense",
        )
        self.q_dense = keras.layers.Dense(
            2 * heads,
            use_bias=use_bias,
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=self.dtype_policy,
            name="q_dense",
        )
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def build(self, input_shape):
        self.p_dense.build(input_shape)
        self.q_dense.build((*input_shape[:-1], 2 * self.head_size))

    def call(self, inputs, mask=None):
        # In bert4keras' layout query and key are the even and the odd columns of p_dense, end
        # and start bias those of q_dense.
        x = self.p_dense(inputs)  # (b, n, 2 size)
        biases = ops.cast(self.q_dense(x), "float32") / 2.0  # (b, n, 2 heads)
        x = ops.cast(x, "float32")
        query, key = x[..., ::2], x[..., 1::2]
        if self.rope:
            query, key = apply_rotary(query), apply_rotary(key)
        query = query / math.sqrt(self.head_size)
        biases = ops.concatenate([biases[..., 1::2], biases[..., ::2]], axis=-1)
        if mask is not None:
            biases = mask_scores(biases, ops.cast(mask, "bool")[:, :, None])
        factors = ops.concatenate([query, key, biases], axis=-1)
        if self.factored:
            return factors
        return dense_span_scores(factors, self.heads, self.head_size, self.tril_mask)

    def compute_mask(self, inputs, mask=None):
        # Padding is in the biases; a loss must not mask the output once more.
        return None

    def compute_output_shape(self, input_shape):
        batch, length = input_shape[:2]
        if self.factored:
            return (batch, length, 2 * (self.head_size + self.heads))
        return (batch, self.heads, length, length)

    def compute_output_spec(self, inputs, mask=None):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype="float32")

    def get_config(self):
        config = super().get_config()
        config.update(
            heads=self.heads,
            head_size=self.head_size,
            rope=self.rope,
            use_bias=self.use_bias,
            tril_mask=self.tril_mask,
            kernel_initializer=keras.initializers.serialize(self.kernel_initializer),
            factored=self.factored,
        )
        return config
