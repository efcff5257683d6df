import keras
import numpy as np
from keras import ops

from keras_ext.diffusion.forward_processes.axes import spatial_axes
from keras_ext.diffusion.forward_processes.forward_process import ForwardProcess
from keras_ext.diffusion.predictions import aligned
from keras_ext.ops.settings import number


@keras.saving.register_keras_serializable(package="keras_ext")
class GaussianBlur(ForwardProcess):
    """Blurs: the waves of a cosine transform are damped, the short ones first.

        x_t = D^T exp(-s pi^2 k^2 / 2) D x_0,  s = (largest t n_max / n)^2

    D is the cosine transform (DCT-II) along an axis of n numbers, k = 0 ... n - 1, and n_max the
    longest axis: a Gaussian filter whose standard deviation rises evenly to `largest` n_max, on an
    image whose edges are mirrors. The mean stays. Nothing is random: what varies between samples
    must be in the start.

    Args:
        largest: float, the standard deviation at time 1, as a share of the longest axis; from 1 on
            hardly more than the mean is left.

    Data are images (b, h, w, c), sequences (b, n, c), or (b, n).

    Example:

    >>> x, noise = GaussianBlur().sample(np.float32([[0, 0, 1, 0]]), 1.0)
    >>> np.asarray(x).round(2).tolist()
    [[0.25, 0.25, 0.25, 0.25]]

    Source: Generative Modelling With Inverse Heat Dissipation, Severi Rissanen, Markus Heinonen,
        Arno Solin, 2022, https://arxiv.org/abs/2206.13397
    """

    rules = ("increment", "resample")

    def __init__(self, largest=1.0):
        self.largest = number("largest", largest)
        if not self.largest > 0:
            raise ValueError(f"Expected largest above 0. Received: largest={largest}")

    def levels(self, t):
        """1/2 (largest t pi)^2."""
        return (0.5 * (self.largest * np.pi * t) ** 2,)

    def degrade(self, x0, levels, noise):
        """Each axis, transformed, damped and transformed back."""
        axes = spatial_axes(x0)
        longest = max(x0.shape[axis] for axis in axes)
        for axis in axes:
            n = x0.shape[axis]
            basis = ops.convert_to_tensor(cosines(n).astype("float32"))
            rates = (np.arange(n) * longest / n) ** 2
            shape = [1] * len(x0.shape)
            shape[axis] = n
            rates = ops.convert_to_tensor(np.reshape(rates, shape).astype("float32"))
            damping = ops.exp(-aligned(levels[0], x0) * rates)
            x0 = _along(ops.transpose(basis), damping * _along(basis, x0, axis), axis)
        return x0

    def get_config(self):
        return {"largest": self.largest}


def cosines(n):
    """The orthonormal cosine transform (DCT-II) of n numbers: (n, n) float64, waves by places."""
    wave, place = np.arange(n)[:, None], np.arange(n)[None]
    basis = np.sqrt(2.0 / n) * np.cos(np.pi * wave * (place + 0.5) / n)
    basis[0] = np.sqrt(1.0 / n)
    return basis


def _along(matrix, x, axis):
    """A matrix times an axis of x."""
    return ops.moveaxis(ops.tensordot(x, matrix, axes=[[axis], [1]]), -1, axis)
