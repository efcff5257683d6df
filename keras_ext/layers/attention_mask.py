import keras
from keras import ops

APPLICATIONS = ("lm", "unilm")


@keras.saving.register_keras_serializable(package="keras_ext")
class AttentionMask(keras.layers.Layer):
    """Which token may look at which, beside padding.

        "lm":     j <= i, a language model that reads from left to right
        "unilm":  cumsum(segment)_j <= cumsum(segment)_i

    In "unilm", the tokens of segment 0 (the source) see one another, and those of segment 1 (the
    target) see the source and what stands before them.

    Args:
        application: "lm" or "unilm".

    Call arguments:
        inputs: (b, n) int, the token ids for "lm" (only their shape counts), the segment ids for
            "unilm".

    Returns:
        (1, n, n) bool for "lm", (b, n, n) for "unilm"; axis 1 looks at axis 2.

    Raises:
        ValueError: for another `application`.

    Example:

    >>> import numpy as np
    >>> mask = AttentionMask("unilm")(np.array([[0, 0, 1]]))
    >>> np.array(mask)[0].astype(int).tolist()
    [[1, 1, 0], [1, 1, 0], [1, 1, 1]]

    Source: Li Dong et al., Unified Language Model Pre-training for Natural Language Understanding
    and Generation, 2019, https://arxiv.org/abs/1905.03197
    """

    def __init__(self, application, **kwargs):
        super().__init__(**kwargs)
        if application not in APPLICATIONS:
            raise ValueError(f"Expected one of {APPLICATIONS}. Received: {application=}")
        self.application = application
        # The output is no sequence whose padding could be masked.
        self.supports_masking = True

    def call(self, inputs):
        if self.application == "lm":
            order = ops.arange(ops.shape(inputs)[1], dtype="int32")[None]
        else:
            order = ops.cumsum(ops.cast(inputs, "int32"), axis=1)
        return order[:, None, :] <= order[:, :, None]

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def compute_output_shape(self, input_shape):
        batch, length = input_shape
        return (1 if self.application == "lm" else batch, length, length)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), "bool")

    def get_config(self):
        return {**super().get_config(), "application": self.application}
