import keras

from keras_ext.layers.group_norm import GroupNorm
from keras_ext.layers.multi_head_self_attention import MultiHeadSelfAttention
from keras_ext.models.blocks import check_heads, keep_arguments, kept_config
from keras_ext.models.denoising import (
    check_classes,
    check_dropout,
    denoiser_inputs,
    embed_condition,
)
from keras_ext.ops.settings import whole


@keras.saving.register_keras_serializable(package="keras_ext")
class UNet(keras.Model):
    """A network that tells noise from data, for images and sequences of any size.

        x -> Conv -> level 0: blocks -------------------------> + -> blocks -> norm -> Conv
                        | half the size                         ^ twice the size
                     level 1: blocks -------------> + -> blocks-+
                        | half the size             ^
                     level 2: blocks ---------------+

    A block sees the time and the class, as scales and shifts of its second norm:

        y = Conv(swish(GroupNorm(x)))
        x = x + Conv(dropout(swish(GroupNorm(y, W c))))
        x = x + attention(GroupNorm(x)),  at the levels of `attention_levels`

    where c is what `TimeEmbedding` and an embedding of the class give. What comes from a lower
    level is brought to the channels of the one above, and added: beside it, as in the first U-Net,
    it would make the convolutions at the full size, the slowest, twice as large. The last
    convolution of each block and of the network begins as 0, and so does the output. A size that
    is odd is halved upwards, and cut on its way back: 7 has levels of 7, 4 and 2.

    A functional model. Convolutions have 3 (x 3) taps.

    Args:
        input_shape: tuple of ints, the shape of a sample: (height, width, c) or (length, c).
        channels: tuple of ints, those of each level. Defaults to (32, 64): of a size that learns
            images of 8 x 8 on a processor in minutes.
        attention_levels: tuple of ints, levels whose blocks have self-attention, 0 the one of
            full size. Its memory grows with the square of the positions. Defaults to none.
        blocks_per_level: int, blocks on each side of a level. Defaults to 2.
        num_classes: int; None: there is no input `label`.
        dropout: float in [0, 1). Defaults to 0.
        groups: int, groups of channels of the norms, which divides all `channels`. Defaults to 8.
        num_heads: int, heads of attention. Defaults to 4.
        dtype: dtype policy of the layers; norms and what is told of time and class are float32 in each.

    Inputs, a dict:
        x: (b, *input_shape) float32.
        t: (b,) float32, the time: 0 data, 1 noise.
        label: (b,) int32 from 0 to `num_classes`, which stands for no class. Only with
            `num_classes`.

    Returns:
        (b, *input_shape) in the compute dtype.

    Raises:
        ValueError: for a shape of another rank, a level that there is not, channels that `groups`
            or `num_heads` do not divide, or a number out of its range.

    Example:

    >>> import numpy as np
    >>> network = UNet((7, 7, 1), channels=(8, 16), num_classes=10)
    >>> batch = {
    ...     "x": np.ones((2, 7, 7, 1), "float32"),
    ...     "t": np.array([0.5, 1.0], "float32"),
    ...     "label": np.array([3, 10], "int32"),
    ... }
    >>> tuple(network(batch).shape)
    (2, 7, 7, 1)

    Source: Olaf Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image
    Segmentation, 2015, https://arxiv.org/abs/1505.04597; Jonathan Ho, Ajay Jain, Pieter Abbeel,
    Denoising Diffusion Probabilistic Models, 2020, https://arxiv.org/abs/2006.11239
    """

    def __init__(
        self,
        input_shape,
        channels=(32, 64),
        attention_levels=(),
        blocks_per_level=2,
        num_classes=None,
        dropout=0.0,
        groups=8,
        num_heads=4,
        dtype=None,
        name=None,
        trainable=True,
    ):
        input_shape = checked_shape(input_shape)
        channels = checked_channels(channels, groups)
        attention_levels = checked_levels(attention_levels, len(channels))
        blocks_per_level = whole("blocks_per_level", blocks_per_level)
        num_classes = check_classes(num_classes)
        dropout = check_dropout(dropout)
        groups, num_heads = whole("groups", groups), whole("num_heads", num_heads)
        arguments = dict(locals())
        del arguments["input_shape"]  # of which Keras has a property: `get_config` adds it
        parts = Parts(
            len(input_shape) - 1, dropout, groups, num_heads, keras.dtype_policies.get(dtype)
        )

        def level_blocks(x, level, side):
            for i in range(blocks_per_level):
                place = f"{side}-{level}-Block-{i}"
                x = parts.block(x, condition, place)
                if level in attention_levels:
                    x = parts.attention(x, place)
            return x

        # === Functional model ===
        inputs = denoiser_inputs(input_shape, num_classes)
        condition = embed_condition(inputs, 4 * channels[0], num_classes)
        x = parts.conv(channels[0], "Input-Conv")(inputs["x"])
        passed = []
        for level in range(len(channels)):
            if level:
                x = parts.conv(channels[level], f"Down-{level}-Half", strides=2)(x)
            x = level_blocks(x, level, "Down")
            passed.append(x)
        for level in reversed(range(len(channels) - 1)):
            x = parts.add_above(x, passed[level], f"Up-{level}")
            x = level_blocks(x, level, "Up")
        x = parts.normed(x, "Output")
        x = parts.conv(input_shape[-1], "Output-Conv", kernel_initializer="zeros")(x)
        super().__init__(inputs, x, name=name)
        keep_arguments(self, arguments)

    def get_config(self):
        return {**kept_config(self), "input_shape": tuple(self.input["x"].shape[1:])}


class Parts:
    """The parts of the graph, for data of one or two dimensions.

    Args:
        rank: 1 or 2.
        dropout, groups, num_heads: those of `UNet`.
        policy: dtype policy.
    """

    def __init__(self, rank, dropout, groups, num_heads, policy):
        self.dropout = dropout
        self.groups = groups
        self.num_heads = num_heads
        self.policy = policy
        self.convolution, self.upsampling, self.cropping = {
            1: (keras.layers.Conv1D, keras.layers.UpSampling1D, keras.layers.Cropping1D),
            2: (keras.layers.Conv2D, keras.layers.UpSampling2D, keras.layers.Cropping2D),
        }[rank]

    def conv(self, channels, name, **arguments):
        """A convolution that keeps the size, or halves it upwards."""
        return self.convolution(
            channels, 3, padding="same", dtype=self.policy, name=name, **arguments
        )

    def dense(self, units, name):
        """A dense layer, the same at each position."""
        return keras.layers.Dense(units, dtype=self.policy, name=name)

    def normed(self, x, name, *modulation):
        """swish(GroupNorm(x))."""
        x = GroupNorm(self.groups, dtype=self.policy, name=f"{name}-Norm")(x, *modulation)
        return keras.layers.Activation("swish", dtype=self.policy, name=f"{name}-Swish")(x)

    def block(self, x, condition, name):
        """Two convolutions, told of time and class between, and what they are added to."""
        channels = x.shape[-1]
        modulation = self.dense(2 * channels, f"{name}-Modulation")(condition)
        y = self.conv(channels, f"{name}-Conv-0")(self.normed(x, f"{name}-0"))
        y = self.normed(y, f"{name}-1", modulation)
        y = keras.layers.Dropout(self.dropout, dtype=self.policy, name=f"{name}-Dropout")(y)
        y = self.conv(channels, f"{name}-Conv-1", kernel_initializer="zeros")(y)
        return keras.layers.Add(dtype=self.policy, name=f"{name}-Add")([x, y])

    def attention(self, x, name):
        """Self-attention of all positions, added."""
        *sizes, channels = x.shape[1:]
        name = f"{name}-Attention"
        reshape, policy = keras.layers.Reshape, self.policy
        y = GroupNorm(self.groups, dtype=policy, name=f"{name}-Norm")(x)
        y = reshape((-1, channels), dtype=policy, name=f"{name}-Flatten")(y)
        head_size = check_heads(channels, self.num_heads)
        y = MultiHeadSelfAttention(self.num_heads, head_size, dtype=policy, name=name)(y)
        y = reshape((*sizes, channels), dtype=policy, name=f"{name}-Unflatten")(y)
        return keras.layers.Add(dtype=policy, name=f"{name}-Add")([x, y])

    def add_above(self, x, above, name):
        """`x` at the channels and twice the size, cut to that of the level above, and added."""
        x = self.dense(above.shape[-1], f"{name}-Dense")(x)  # before there are more positions
        x = self.upsampling(dtype=self.policy, name=f"{name}-Double")(x)
        sizes = zip(x.shape[1:-1], above.shape[1:-1], strict=True)
        extra = tuple((0, double - size) for double, size in sizes)
        if any(last for _, last in extra):
            cut = extra if len(extra) > 1 else extra[0]
            x = self.cropping(cut, dtype=self.policy, name=f"{name}-Cut")(x)
        return keras.layers.Add(dtype=self.policy, name=f"{name}-Add")([x, above])


def whole_numbers(name, each, values, least=1):
    """Several settings that count something, as a tuple of ints."""
    if not isinstance(values, (tuple, list)):
        raise ValueError(f"Expected {name} to be a tuple of ints. Received: {name}={values!r}")
    return tuple(whole(each, value, least) for value in values)


def checked_shape(input_shape):
    """The shape of a sample as a tuple of two or three ints."""
    shape = whole_numbers("input_shape", "a size of input_shape", input_shape)
    if len(shape) not in (2, 3):
        raise ValueError(
            "Expected the shape of a sample, (height, width, channels) or (length, channels). "
            f"Received: {input_shape=}"
        )
    return shape


def checked_channels(channels, groups):
    """The channels of each level as a tuple of ints that `groups` divides."""
    checked = whole_numbers("channels", "a number of channels", channels)
    if not checked or any(number % whole("groups", groups) for number in checked):
        raise ValueError(
            "Expected the channels of each level, which the groups of the norms divide. "
            f"Received: {channels=}, {groups=}"
        )
    return checked


def checked_levels(attention_levels, count):
    """The levels with attention as a tuple of ints below `count`."""
    levels = whole_numbers(
        "attention_levels", "a level of attention_levels", attention_levels, least=0
    )
    if any(level >= count for level in levels):
        raise ValueError(
            f"Expected levels from 0 to {count - 1}, one for each of `channels`. "
            f"Received: {attention_levels=}"
        )
    return levels
