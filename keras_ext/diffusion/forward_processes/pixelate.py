import keras
import numpy as np
from keras import ops

from keras_ext.diffusion.forward_processes.axes import spatial_axes
from keras_ext.diffusion.forward_processes.forward_process import ForwardProcess
from keras_ext.diffusion.predictions import aligned
from keras_ext.ops.settings import whole


@keras.saving.register_keras_serializable(package="keras_ext")
class Pixelate(ForwardProcess):
    """Makes blocks of one value, their mean, that double in size.

        x_t = (1 - f) P_k x_0 + f P_{k+1} x_0,  k + f = t log2(largest)

    where P_k takes the means of blocks of 2^k places, and repeats them. Nothing is random: what
    varies between samples must be in the start.

    Args:
        largest: int, a power of 2: the side of a block at time 1, which divides that of the data.

    Data are images (b, h, w, c), sequences (b, n, c), or (b, n).

    Example:

    >>> x, noise = Pixelate(4).sample(np.float32([[0, 2, 4, 6]]), 0.5)
    >>> np.asarray(x).tolist()
    [[1.0, 1.0, 5.0, 5.0]]

    Source: Cold Diffusion: Inverting Arbitrary Image Transforms Without Noise, Arpit Bansal et al.,
        2022, https://arxiv.org/abs/2208.09392
    """

    rules = ("increment", "resample")

    def __init__(self, largest=8):
        self.largest = whole("largest", largest, least=2)
        self.doublings = self.largest.bit_length() - 1
        if self.largest != 2**self.doublings:
            raise ValueError(f"Expected largest of 2, 4, 8, ... Received: largest={largest}")

    def levels(self, t):
        """The share of each size of block, from 1 to `largest`: they rise and fall one after one."""
        xp = ops if ops.is_tensor(t) else np
        sizes = range(self.doublings + 1)
        return tuple(xp.maximum(1.0 - xp.abs(self.doublings * t - k), 0.0) for k in sizes)

    def degrade(self, x0, levels, noise):
        """The means of blocks of all sizes, each times its share."""
        axes = spatial_axes(x0)
        sides = [x0.shape[axis] for axis in axes]
        if any(side % self.largest for side in sides):
            raise ValueError(
                f"Expected sides that blocks of {self.largest} divide. "
                f"Received: shape={tuple(x0.shape)}"
            )
        total = 0.0
        for k, level in enumerate(levels):
            blocks = x0
            for axis in axes:
                blocks = _blocks(blocks, axis, 2**k)
            total = total + aligned(level, x0) * blocks
        return total

    def get_config(self):
        return {"largest": self.largest}


def _blocks(x, axis, size):
    """x whose blocks along an axis have the value of their mean."""
    if size == 1:
        return x
    shape = ops.shape(x)
    split = (*shape[:axis], x.shape[axis] // size, size, *shape[axis + 1 :])
    means = ops.mean(ops.reshape(x, split), axis=axis + 1)
    return ops.repeat(means, size, axis=axis)
