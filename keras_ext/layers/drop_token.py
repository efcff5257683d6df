import keras
from keras import ops

from keras_ext.ops.random_tokens import choose_tokens, count_true, fraction

MODES = ("gather", "mask")


@keras.saving.register_keras_serializable(package="keras_ext")
class DropToken(keras.layers.Layer):
    """Takes a share of the tokens away in training, and leaves the others where they were.

    Of the m tokens of a row, ceil((1 - rate) m) are kept, all sets of that size alike:

        gather   (x_i, position_i) for the kept i, in their order:  the sequence gets shorter
        mask     x as it was, and a mask that is false at the others:  no query sees those keys

    Attention after it weighs the kept tokens as if there had never been others, in all layers the
    same ones: dropout of whole columns of the attention matrix, which the MAE is for images. Both
    modes give the kept tokens the same output, if positions are passed on and nothing mixes tokens
    but attention; "gather" costs (1 - rate) of the length, "mask" leaves an output for every token.
    What an MLM replaces stays; what is dropped here is not there. The `column_dropout` of the
    encoders is this layer with "mask".

    The softmax makes the weights of the kept sum to one, so that nothing needs a factor at
    inference. (Where a dropped token is a query, in "mask", it does not see itself.)

    Args:
        rate: float in [0, 1), taken as the nearest fraction with a denominator up to 10000. The
            post advises 0.1 to 0.15.
        keep_first: bool, whether the first token of each row stays, such as BERT's [CLS]; it counts
            among the kept. Defaults to True.
        mode: "gather" or "mask". Defaults to "gather".
        seed: int, of the random numbers. None: another one each time. Defaults to None.

    Call arguments:
        inputs: (b, n, ...), token ids or vectors.
        mask: (b, n) bool, true = token. None: all are tokens.
        positions: (n,) or (b, n), where the tokens stand. None: 0, ..., n - 1, as int32.
        training: bool, whether tokens are dropped.

    Returns:
        x (b, k, ...) in its own dtype, positions (b, k) and a mask (b, k) bool. With "gather" in
        training k = ceil((1 - rate) n) for all rows; in a row with padding, what is left of these k
        is padding again, at the end, where the mask is false. Else k = n; at inference all is as
        it was. Pass the mask on: Keras does not.

    Raises:
        ValueError: for a rate outside of [0, 1) or an unknown mode.

    Example:

    >>> import numpy as np
    >>> drop = DropToken(0.5, seed=0)
    >>> ids = np.array([[2, 7, 8, 9, 5, 0]])
    >>> x, positions, mask = drop(ids, mask=ids > 0, training=True)
    >>> tuple(x.shape), int(x[0, 0]), np.array(mask).tolist()
    ((1, 3), 2, [[True, True, True]])
    >>> bool(np.all(np.array(x[0]) == ids[0][np.array(positions[0])]))
    True

    Source: Jianlin Su, 2021, https://kexue.fm/archives/8770; Kaiming He et al., Masked Autoencoders
    Are Scalable Vision Learners, 2021, https://arxiv.org/abs/2111.06377
    """

    def __init__(self, rate, keep_first=True, mode="gather", seed=None, **kwargs):
        # Positions may be floats, which Keras would round to the compute dtype.
        super().__init__(autocast=False, **kwargs)
        if mode not in MODES:
            raise ValueError(f"Unknown mode, expected one of {MODES}. Received: {mode=}")
        self._dropped_share = fraction("rate", rate)
        self.rate = rate
        self.keep_first = keep_first
        self.mode = mode
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def call(self, inputs, mask=None, positions=None, training=None):
        inputs = ops.convert_to_tensor(inputs)
        batch, length = ops.shape(inputs)[:2]
        if mask is None:
            mask = ops.ones((batch, length), "bool")
        mask = ops.cast(mask, "bool")
        if positions is None:
            positions = ops.arange(length, dtype="int32")
        positions = ops.broadcast_to(positions, (batch, length))
        if not training:
            return inputs, positions, mask
        kept = self._kept(mask)
        if self.mode == "mask":
            return inputs, positions, kept
        place = ops.arange(length, dtype="int32")
        order = ops.argsort(ops.where(kept, place, place + length), axis=-1)
        order = order[:, : self._share(length)]  # (b, k)
        shape = (*ops.shape(order), *[1] * (len(inputs.shape) - 2))
        x = ops.take_along_axis(inputs, ops.reshape(order, shape), axis=1)
        return x, *(ops.take_along_axis(y, order, axis=1) for y in (positions, kept))

    def _share(self, count):
        """ceil((1 - rate) count), of an int or of integers."""
        numerator, denominator = self._dropped_share
        return count - count * numerator // denominator

    def _kept(self, mask):
        shape = ops.shape(mask)
        noise = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        if self.keep_first:
            ordinal = ops.cumsum(ops.cast(mask, "int32"), axis=-1)
            noise = ops.where(ordinal == 1, -1.0, noise)
        return choose_tokens(noise, mask, self._share(count_true(mask)))

    def compute_mask(self, inputs, previous_mask=None):
        # An output is the mask.
        return None

    def compute_output_shape(self, input_shape):
        return tuple(input_shape), tuple(input_shape[:2]), tuple(input_shape[:2])

    def compute_output_spec(self, inputs, mask=None, positions=None, training=None):
        # In training and at inference a graph has outputs of another length.
        shape = tuple(inputs.shape)
        if self.mode == "gather" and self.rate:
            shape = (shape[0], None, *shape[2:])
        dtype = "int32" if positions is None else keras.backend.standardize_dtype(positions.dtype)
        return (
            keras.KerasTensor(shape, inputs.dtype),
            keras.KerasTensor(shape[:2], dtype),
            keras.KerasTensor(shape[:2], "bool"),
        )

    def get_config(self):
        return {
            **super().get_config(),
            "rate": self.rate,
            "keep_first": self.keep_first,
            "mode": self.mode,
            "seed": self.seed,
        }
