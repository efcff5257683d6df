import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_ext")
class GroupNorm(keras.layers.Layer):
    """Normalises groups of channels over all positions; a condition may modulate the result.

        output = (gamma + scale) (x - mean) / sqrt(variance + epsilon) + beta + shift

    Mean and variance are those of one sample and one group of neighbouring channels. gamma and
    beta, one number a channel, are learned; scale and shift, one number a sample and channel, are
    what a network makes of a time or a class, and 0 without. Computed in float32 whatever the
    compute dtype.

    `keras.layers.GroupNormalization` takes no condition. Here scale and shift cost nothing at the
    positions: they are joined with gamma and beta before.

    Args:
        groups: int, which divides the number of channels. Defaults to 8.
        epsilon: float, added to the variance. Defaults to 1e-5.

    Call arguments:
        inputs: (b, ..., c), at least one axis between.
        modulation: (b, 2 c), first all scales, then all shifts. None: zeros.

    Returns:
        (b, ..., c) in the compute dtype.

    Raises:
        ValueError: if `groups` does not divide the number of channels, or the rank is below 3.

    Example:

    >>> import numpy as np
    >>> x = np.array([[[1.0, 3.0], [5.0, 7.0]]], "float32")  # (1, 2, 2): one group, four numbers
    >>> [[f"{y:.2f}" for y in row] for row in np.array(GroupNorm(groups=1)(x))[0]]
    [['-1.34', '-0.45'], ['0.45', '1.34']]

    Source: Yuxin Wu, Kaiming He, Group Normalization, 2018, https://arxiv.org/abs/1803.08494;
    Prafulla Dhariwal, Alex Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021,
    https://arxiv.org/abs/2105.05233
    """

    def __init__(self, groups=8, epsilon=1e-5, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if groups < 1:
            raise ValueError(f"There must be a group at least. Received: {groups=}")
        self.groups = groups
        self.epsilon = epsilon

    def build(self, input_shape):
        channels = input_shape[-1]
        if len(input_shape) < 3 or channels % self.groups:
            raise ValueError(
                "Expected (batch, ..., channels) and groups that divide the channels. "
                f"Received: input_shape={tuple(input_shape)}, groups={self.groups}"
            )
        # Without autocast they stay float32, as the statistics.
        self.gamma = self.add_weight((channels,), "ones", name="gamma", autocast=False)
        self.beta = self.add_weight((channels,), "zeros", name="beta", autocast=False)

    def call(self, inputs, modulation=None):
        channels = inputs.shape[-1]
        # Sums over positions first: over axes that do not lie together they take twice as long.
        x = ops.reshape(ops.cast(inputs, "float32"), (ops.shape(inputs)[0], -1, channels))
        x = x - self._group_mean(x)  # (b, n, c)
        gain = ops.rsqrt(self._group_mean(ops.square(x)) + self.epsilon)  # (b, 1, c)
        if modulation is None:
            x = x * (gain * self.gamma) + self.beta
        else:
            modulation = ops.expand_dims(ops.cast(modulation, "float32"), 1)  # (b, 1, 2 c)
            scale, shift = ops.split(modulation, 2, axis=-1)
            x = x * (gain * (self.gamma + scale)) + (self.beta + shift)
        return ops.cast(ops.reshape(x, ops.shape(inputs)), self.compute_dtype)

    def _group_mean(self, x):
        """The mean over the positions and the channels of a group, for each channel: (b, 1, c)."""
        size = x.shape[-1] // self.groups
        means = ops.reshape(ops.mean(x, axis=1), (-1, self.groups, size))
        means = ops.broadcast_to(ops.mean(means, axis=-1, keepdims=True), ops.shape(means))
        return ops.reshape(means, (-1, 1, x.shape[-1]))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "groups": self.groups, "epsilon": self.epsilon}
