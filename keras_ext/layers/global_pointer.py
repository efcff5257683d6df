import math

import keras
from keras import ops

from keras_ext.ops import apply_rotary, mask_scores, valid_pairs


@keras.saving.register_keras_serializable(package="keras_ext")
class GlobalPointer(keras.layers.Layer):
    """Scores every (start, end) pair of a sequence for each entity type.

        q_h(i) = W_h x_i + b_h,   k_h(j) = V_h x_j + d_h
        s_h(i, j) = (R_i q_h(i)) . (R_j k_h(j)) / sqrt(head_size)

    with the rotary embedding R. A pair is an entity of type h where its score is above 0, so
    nested and overlapping entities need nothing special. Learn it with `global_pointer_crossentropy`.
    `EfficientGlobalPointer` shares W and V between the types and needs far fewer parameters.

    Args:
        heads: int, the number of entity types.
        head_size: int, the width of query and key; even where `rope` is used.
        rope: bool, whether rotary positions are used. Without them the pairs of a far start and
            end are easily taken for entities.
        use_bias: bool, whether the projections have a bias.
        tril_mask: bool, whether pairs with end < start are masked.
        kernel_initializer: the initializer of the projections.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: (batch, length, dim).
        mask: boolean (batch, length), true = token. None: all are tokens.

    Output shape:
        (batch, heads, length, length), axis 2 the start, axis 3 the end, always float32;
        -1e30 at masked pairs.

    Raises:
        ValueError: for heads or head_size below 1, an odd head_size with `rope`, or inputs of
            another rank.

    Example:

    >>> import numpy as np
    >>> layer = GlobalPointer(heads=3, head_size=8)
    >>> tuple(layer(np.zeros((2, 5, 16), "float32")).shape)
    (2, 3, 5, 5)

    Source: Jianlin Su et al., Global Pointer: Novel Efficient Span-based Approach for Named
    Entity Recognition, 2022, https://arxiv.org/abs/2208.03054; https://kexue.fm/archives/8373
    """

    def __init__(
        self,
        heads,
        head_size=64,
        rope=True,
        use_bias=True,
        tril_mask=True,
        kernel_initializer="lecun_normal",
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
        self.dense = keras.layers.Dense(
            2 * heads * head_size,
            use_bias=use_bias,
            kernel_initializer=self.kernel_initializer,
            dtype=self.dtype_policy,
            name="dense",
        )
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs, mask=None):
        length = ops.shape(inputs)[1]
        # In bert4keras' layout each head has its query columns, then its key columns.
        x = ops.cast(self.dense(inputs), "float32")
        x = ops.reshape(x, (-1, length, self.heads, 2 * self.head_size))  # (b, n, heads, 2 size)
        query, key = x[..., : self.head_size], x[..., self.head_size :]
        if self.rope:
            query, key = apply_rotary(query), apply_rotary(key)
        query = query / math.sqrt(self.head_size)
        scores = ops.matmul(  # (b, heads, n, n)
            ops.transpose(query, (0, 2, 1, 3)), ops.transpose(key, (0, 2, 3, 1))
        )
        if mask is None:
            mask = ops.ones(ops.shape(inputs)[:2], "bool")
        pairs = valid_pairs(ops.cast(mask, "bool"), self.tril_mask)
        return mask_scores(scores, pairs[:, None])

    def compute_mask(self, inputs, mask=None):
        # The output has no time axis that a loss could mask.
        return None

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.heads, input_shape[1], input_shape[1])

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
        )
        return config


def check_heads(heads, head_size, rope):
    """Raises ValueError where the sizes of a span head cannot work."""
    if heads < 1 or head_size < 1:
        raise ValueError(
            f"heads and head_size are positive integers. Received: {heads=}, {head_size=}"
        )
    if rope and head_size % 2:
        raise ValueError(
            f"Rotary positions turn channels in pairs: head_size is even. Received: {head_size=}"
        )
