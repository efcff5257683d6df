import math

import keras
import numpy as np
from keras import ops

from keras_ext.ops.quantised import (
    checked_indices,
    known_or_nan,
    marked_indices,
    outputs_of,
    specs_of,
    straight_through,
    zero_hidden,
)
from keras_ext.ops.settings import one_of, whole

MODES = ("tanh", "sigmoid")
MARGIN = 1e-3  # by how much more than its levels a channel may span, so that all can be reached


@keras.saving.register_keras_serializable(package="keras_ext")
class FSQ(keras.layers.Layer):
    """Finite scalar quantisation: every channel is rounded to one of a few levels.

        "tanh"     b = tanh(z + atanh(o / h)) h - o,  h = 1.001 (L - 1) / 2,  o = 1/2 for even L, else 0
                   q = round(b),  code = q / floor(L / 2)
        "sigmoid"  q = round((L - 1) sigmoid(z)),  code = 2 q / (L - 1) - 1
        index = sum_i d_i prod_{j < i} L_j,  d_i = 0, ..., L_i - 1, the level counted from the lowest

    The codebook is the grid of all levels of all channels: it has no weights, there is no loss and
    nothing that could collapse. The gradient passes the rounding as if it were not there.

    "tanh", the paper's, has 0 among its codes, and codes from -1 to 1, to 1 - 2 / L for even L.
    "sigmoid" is symmetric. Levels of the paper: 2^4 [5, 3], 2^6 [8, 8], 2^8 [8, 6, 5], 2^9 [8, 8, 8],
    2^10 [8, 5, 5, 5], 2^11 [8, 8, 6, 5], 2^12 [7, 5, 5, 5, 5], 2^14 [8, 8, 8, 6, 5], 2^16 [8, 8, 8,
    5, 5, 5]; five and more each.

    All of it is float32 and int32 whatever the policy: in bfloat16 half of the indices below 1000
    are wrong, and tanh merges the outer levels.

    Args:
        levels: list of ints, L of each channel, 2 or more; more than 2 with "tanh". At most
            2^31 - 1 codes: more want several FSQ, on channels of their own or as stages of a
            `ResidualQuantizer`.
        mode: "tanh" or "sigmoid". Defaults to "tanh".

    Call arguments:
        inputs: (..., k) for k levels, floats.
        mask: bool, of the first axes of the inputs, such as (b, n), or None. 0 stands in for what it
            hides.
        return_indices: bool. Defaults to False.
        return_loss: bool, as of quantisers that have a loss. Defaults to False.

    Returns:
        (..., k) codes, float32; with `return_indices` a tuple of these and indices (...) int32,
        which are -1 where the mask hides, and where a channel is NaN, as is its code then; with
        `return_loss` the loss as the last, 0.

    Raises:
        ValueError: for levels below 2, 2 with "tanh" (the two meet at atanh(0.999) = 3.8, so that
            nearly everything is one of them), too many codes, an unknown mode, another number of
            channels, and indices out of range. In a graph, which cannot raise, their codes are NaN.

    Example:

    >>> layer = FSQ([8, 5, 5, 5])
    >>> layer.num_codes, np.array(layer.encode(np.zeros((2, 4)))).tolist()
    (1000, [500, 500])
    >>> np.array(layer.decode([0])).tolist()
    [[-1.0, -1.0, -1.0, -1.0]]

    Source: Fabian Mentzer et al., Finite Scalar Quantization: VQ-VAE Made Simple, 2023,
    https://arxiv.org/abs/2309.15505 ("tanh"); Jianlin Su, 2023, https://kexue.fm/archives/9826
    ("sigmoid")
    """

    def __init__(self, levels, mode="tanh", **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.levels = _checked_levels(levels, mode)
        self.mode = mode
        sizes = np.array(self.levels)
        self._last = np.float32(sizes - 1)
        # A code is its level counted from the one at 0, in units that make the lowest -1.
        self._centre = np.float32(sizes // 2 if mode == "tanh" else (sizes - 1) / 2)
        self._half = np.float32((sizes - 1) * (1 + MARGIN) / 2)
        self._offset = np.where(sizes % 2 == 0, np.float32(0.5), np.float32(0.0))
        self._strides = np.int32([math.prod(self.levels[:i]) for i in range(self.dim)])
        self.supports_masking = True

    @property
    def dim(self):
        """The number of channels."""
        return len(self.levels)

    @property
    def num_codes(self):
        """The number of codes."""
        return math.prod(self.levels)

    @property
    def half_step(self):
        """Half of the distance between neighbouring codes, NumPy (k,): what rounding leaves over."""
        return 0.5 / self._centre

    def build(self, input_shape):
        self._check_width(input_shape)

    def _check_width(self, shape):
        if shape[-1] != self.dim:
            raise ValueError(
                f"Expected a channel for each level: (..., {self.dim}). "
                f"Received: shape={tuple(shape)}, levels={self.levels}"
            )

    def call(self, inputs, mask=None, return_indices=False, return_loss=False):
        bounded = self.bound(zero_hidden(ops.convert_to_tensor(inputs), mask))
        codes, indices = self.nearest(bounded)
        codes, indices = straight_through(codes, bounded), marked_indices(indices, mask)
        return outputs_of(codes, indices, ops.zeros(()), return_indices, return_loss)

    def bound(self, inputs):
        """What is rounded, in the units of the codes: (..., k) float32, of about -1 to 1."""
        z = ops.cast(inputs, "float32")
        self._check_width(z.shape)
        if self.mode == "sigmoid":
            return ops.tanh(z / 2)
        shift = np.float32(np.arctanh(self._offset / self._half))
        return (ops.tanh(z + shift) * self._half - self._offset) / self._centre

    def nearest(self, bounded):
        """The code nearest to each bounded vector: (..., k) float32, and its index, -1 of NaN."""
        digits = self.digits(bounded)
        # What NaN is as an integer does not matter: its index is -1.
        indices = ops.sum(ops.cast(digits, "int32") * self._strides, -1)
        unknown = ops.isnan(ops.sum(bounded, -1))
        return self._codes(digits), ops.where(unknown, -1, indices)

    def digits(self, bounded):
        """The level of each channel of bounded vectors, counted from the lowest: (..., k) float32."""
        levels = ops.round(bounded * self._centre + self._centre)
        return ops.stop_gradient(ops.clip(levels, 0.0, self._last))

    def _codes(self, digits):
        return (digits - self._centre) / self._centre

    def encode(self, z):
        """The indices of the codes of vectors.

        Args:
            z: (..., k) floats.

        Returns:
            (...) int32, -1 where a channel is NaN.
        """
        return self.nearest(self.bound(z))[1]

    def decode(self, indices):
        """The codes of indices.

        Args:
            indices: (...) integers.

        Returns:
            (..., k) float32.
        """
        indices, known = checked_indices(indices, self.num_codes)
        digits = ops.floor_divide(indices[..., None], self._strides) % np.int32(self.levels)
        return known_or_nan(self._codes(ops.cast(digits, "float32")), known)

    def codebook(self):
        """All codes, (num_codes, k) float32, in the order of their indices."""
        return self.decode(ops.arange(self.num_codes, dtype="int32"))

    def compute_output_shape(self, input_shape):
        self._check_width(input_shape)
        return tuple(input_shape)

    def compute_output_spec(self, inputs, mask=None, return_indices=False, return_loss=False):
        shape = self.compute_output_shape(inputs.shape)
        return specs_of(shape, shape[:-1], return_indices, return_loss)

    def get_config(self):
        return {**super().get_config(), "levels": self.levels, "mode": self.mode}


def _checked_levels(levels, mode):
    """The levels as Python ints."""
    one_of("mode", mode, MODES)
    if np.ndim(levels) != 1:
        raise ValueError(f"Expected a list of the levels of each channel. Received: {levels=}")
    levels = [whole("levels", each, least=2) for each in levels]
    if not levels:
        raise ValueError(f"Expected the levels of at least one channel. Received: {levels=}")
    if mode == "tanh" and 2 in levels:
        raise ValueError(
            "Two levels of mode='tanh' meet at atanh(0.999) = 3.8, so that nearly every input is "
            "one of them: a dead dimension. Expected mode='sigmoid', or 3 levels and more. "
            f"Received: {levels=}, {mode=}"
        )
    if math.prod(levels) >= 2**31:
        raise ValueError(
            "Indices are int32. Expected at most 2^31 - 1 codes; several FSQ, on channels of their "
            f"own or in a ResidualQuantizer, have more. Received: {levels=}, {math.prod(levels)} codes"
        )
    return levels
