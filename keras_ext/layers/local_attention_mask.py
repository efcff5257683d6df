import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="keras_ext")
class LocalAttentionMask(keras.layers.Layer):
    """Each token may look at its neighbours only.

        |p_i - p_j| < window,  with causal: 0 <= p_i - p_j < window

    for the positions p. Put on at inference, on a model trained without, it keeps attention at
    distances and numbers of keys known from training: enough for tasks that are local, useless for
    those that are not.

    Args:
        window: number, at least 1: positions that a token sees on each side, itself among them.
        causal: bool, whether only the earlier side is seen. Defaults to False.

    Call arguments:
        inputs: (b, n, ...), token ids or vectors; only their shape counts.
        positions: (n,) or (b, n), integers or floats. None: 0, 1, ..., n - 1.

    Returns:
        (1, n, n) bool, (b, n, n) for positions of (b, n); axis 1 looks at axis 2.

    Raises:
        ValueError: for a `window` below 1.

    Example:

    >>> import numpy as np
    >>> mask = LocalAttentionMask(2)(np.zeros((1, 3)))
    >>> np.array(mask)[0].astype(int).tolist()
    [[1, 1, 0], [1, 1, 1], [0, 1, 1]]

    Source: Jianlin Su, 2023, https://kexue.fm/archives/9431
    """

    def __init__(self, window, causal=False, **kwargs):
        # The positions are not rounded to the compute dtype.
        super().__init__(autocast=False, **kwargs)
        if window < 1:
            raise ValueError(f"A token sees at least itself. Received: {window=}")
        self.window = window
        self.causal = causal
        # The output is no sequence whose padding could be masked.
        self.supports_masking = True

    def call(self, inputs, positions=None):
        if positions is None:
            positions = ops.arange(ops.shape(inputs)[1], dtype="int32")
        positions = ops.convert_to_tensor(positions)
        if len(positions.shape) == 1:
            positions = positions[None]
        distance = positions[:, :, None] - positions[:, None, :]  # (1 or b, n, n)
        if self.causal:
            return ops.logical_and(distance >= 0, distance < self.window)
        return ops.abs(distance) < self.window

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def compute_output_shape(self, input_shape, positions_shape=None):
        rows = positions_shape is not None and len(positions_shape) == 2
        return (input_shape[0] if rows else 1, input_shape[1], input_shape[1])

    def compute_output_spec(self, inputs, positions=None):
        shape = None if positions is None else np.shape(positions)  # that of a list, too
        return keras.KerasTensor(self.compute_output_shape(inputs.shape, shape), "bool")

    def get_config(self):
        return {**super().get_config(), "window": self.window, "causal": self.causal}
