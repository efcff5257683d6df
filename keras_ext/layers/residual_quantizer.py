import keras
import numpy as np
from keras import ops

from keras_ext.layers.fsq import FSQ
from keras_ext.layers.vector_quantizer import VectorQuantizer
from keras_ext.ops.quantised import GRADIENTS, marked_indices, outputs_of, specs_of, zero_hidden


@keras.saving.register_keras_serializable(package="keras_ext")
class ResidualQuantizer(keras.layers.Layer):
    """Quantises in stages: each quantiser gets what those before it have left over.

        VectorQuantizer   y_s = Q_s(z - y_0 - ... - y_{s-1})
        FSQ               y_s = c_s Q_s((b - y_0 - ... - y_{s-1}) / c_s),  b = bound(z)
        output            y_0 + y_1 + ...

    with b what the first FSQ rounds, c_0 = 1, and c_{s+1} = c_s times half the distance between two
    codes of stage s, the most that its rounding leaves over: the stages after the first round, and
    bend nothing. Odd levels, or mode "sigmoid", reach both ends of what is left; even ones of "tanh"
    lack the upper one. The gradient passes all stages at once.

    Args:
        quantizers: list of `FSQ`, or of `VectorQuantizer` with distance "l2" (a unit vector is no
            residual), all of one width. Each keeps its losses and the state of its codebook.
        gradient: "straight_through" or "rotation", of the whole; "rotation" for `VectorQuantizer`.
            Defaults to "straight_through".

    Call arguments:
        inputs: (..., d), floats.
        mask: bool, of the first axes of the inputs, such as (b, n), or None. 0 stands in for what it
            hides.
        training: bool, whether codebooks learn.
        return_indices: bool. Defaults to False.
        return_loss: bool, whether the sum of the losses is returned and not added: see
            `VectorQuantizer`. Defaults to False.

    Returns:
        (..., d), float32; with `return_indices` a tuple of these and indices (..., stages) int32,
        which are -1 where the mask hides, and with `return_loss` the loss as the last.

    Raises:
        ValueError: for no quantisers, one that comes twice, those of two kinds or widths, "cosine",
            and "rotation" with FSQ.

    Example:

    >>> layer = ResidualQuantizer([FSQ([5, 5]), FSQ([5, 5])])
    >>> codes, indices = layer(np.ones((2, 7, 2)), return_indices=True)
    >>> tuple(indices.shape), bool(np.all(np.array(layer.decode(indices)) == np.array(codes)))
    ((2, 7, 2), True)

    Source: Neil Zeghidour et al., SoundStream: An End-to-End Neural Audio Codec, 2021,
    https://arxiv.org/abs/2107.03312
    """

    def __init__(self, quantizers, gradient="straight_through", **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.quantizers = _checked(quantizers, gradient)
        self.gradient = gradient
        self._scales = [np.float32(1.0)] * len(self.quantizers)
        if isinstance(self.quantizers[0], FSQ):
            steps = np.float32([each.half_step for each in self.quantizers])
            self._scales[1:] = np.cumprod(steps, axis=0)[:-1]
        self.supports_masking = True

    @property
    def dim(self):
        """The width of the vectors."""
        return self.quantizers[0].dim

    @property
    def num_codes(self):
        """The number of codes of each stage, a list."""
        return [quantizer.num_codes for quantizer in self.quantizers]

    def build(self, input_shape):
        for quantizer in self.quantizers:
            if not quantizer.built:
                quantizer.build(input_shape)

    def call(self, inputs, mask=None, training=None, return_indices=False, return_loss=False):
        losses = [ops.zeros(())]

        def stage(quantizer, rest):
            if isinstance(quantizer, FSQ):
                code, index = quantizer.nearest(rest)
                return code, marked_indices(index, mask)
            flags = {"training": training, "return_indices": True, "return_loss": return_loss}
            code, index, *loss = quantizer(rest, mask=mask, **flags)
            losses.extend(loss)
            return code, index

        inputs = zero_hidden(ops.convert_to_tensor(inputs), mask)
        z, codes, indices = self._stages(inputs, stage)
        output = GRADIENTS[self.gradient](codes, z)
        return outputs_of(output, indices, sum(losses), return_indices, return_loss)

    def _stages(self, inputs, stage):
        """What is quantised, the sum of the codes, and the indices, (..., stages)."""
        first = self.quantizers[0]
        z = first.bound(inputs) if isinstance(first, FSQ) else ops.cast(inputs, "float32")
        total, indices = ops.zeros_like(z), []
        for quantizer, scale in zip(self.quantizers, self._scales, strict=True):
            code, index = stage(quantizer, (z - total) / scale)
            total = total + scale * ops.stop_gradient(code)
            indices.append(index)
        return z, total, ops.stack(indices, axis=-1)

    def encode(self, z):
        """The indices of the codes of vectors.

        Args:
            z: (..., d) floats.

        Returns:
            (..., stages) int32.
        """

        def stage(quantizer, rest):
            if isinstance(quantizer, FSQ):
                return quantizer.nearest(rest)
            index = quantizer.encode(rest)
            return ops.take(quantizer.codebook(), index, axis=0), index

        return self._stages(z, stage)[2]

    def decode(self, indices):
        """The codes of indices.

        Args:
            indices: (..., stages) integers.

        Returns:
            (..., d) float32.
        """
        indices = ops.convert_to_tensor(indices)
        if indices.shape[-1] != len(self.quantizers):
            raise ValueError(
                f"Expected an index for each stage: (..., {len(self.quantizers)}). "
                f"Received: shape={tuple(indices.shape)}"
            )
        total = 0.0
        for i, (quantizer, scale) in enumerate(zip(self.quantizers, self._scales, strict=True)):
            total = total + scale * quantizer.decode(indices[..., i])
        return total

    def codebook(self):
        """The codes of each stage, as they are summed: a list of (codes, d) float32."""
        pairs = zip(self.quantizers, self._scales, strict=True)
        return [scale * quantizer.codebook() for quantizer, scale in pairs]

    def compute_output_shape(self, input_shape):
        return self.quantizers[0].compute_output_shape(input_shape)

    def compute_output_spec(
        self, inputs, mask=None, training=None, return_indices=False, return_loss=False
    ):
        shape = self.compute_output_shape(inputs.shape)
        places = (*shape[:-1], len(self.quantizers))
        return specs_of(shape, places, return_indices, return_loss)

    def get_config(self):
        quantizers = [keras.saving.serialize_keras_object(each) for each in self.quantizers]
        return {**super().get_config(), "quantizers": quantizers, "gradient": self.gradient}

    @classmethod
    def from_config(cls, config):
        quantizers = [keras.saving.deserialize_keras_object(x) for x in config["quantizers"]]
        return super().from_config({**config, "quantizers": quantizers})


def _checked(quantizers, gradient):
    """The list of quantisers that can be stages of one."""
    if not isinstance(quantizers, list | tuple):
        raise ValueError(f"Expected a list of quantisers. Received: {quantizers=}")
    quantizers = list(quantizers)
    kinds = [cls for cls in (FSQ, VectorQuantizer) if quantizers and isinstance(quantizers[0], cls)]
    if not kinds or not all(isinstance(each, kinds[0]) for each in quantizers):
        raise ValueError(
            "Expected a list of FSQ, or a list of VectorQuantizer. "
            f"Received: quantizers={[type(each).__name__ for each in quantizers]}"
        )
    if len({each.dim for each in quantizers}) > 1 or len(set(map(id, quantizers))) < len(
        quantizers
    ):
        raise ValueError(
            "Expected different quantisers of one width. "
            f"Received: {[(each.name, each.dim) for each in quantizers]}"
        )
    if gradient not in GRADIENTS or (gradient == "rotation" and kinds == [FSQ]):
        raise ValueError(
            f"Expected a gradient of {tuple(GRADIENTS)}, of FSQ 'straight_through'. "
            f"Received: {gradient=}"
        )
    if any(getattr(each, "distance", "l2") == "cosine" for each in quantizers):
        raise ValueError(
            "Codes of distance='cosine' are unit vectors, which cannot come nearer to what is left. "
            "Expected distance='l2'. Received: distance='cosine'"
        )
    return quantizers
