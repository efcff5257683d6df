import keras

from keras_ext.ops import pool


@keras.saving.register_keras_serializable(package="keras_ext")
class Pooling(keras.layers.Layer):
    """The hidden states of tokens as one vector of the text, in float32.

        "mean":        sum_i m_i h_i / sum_i m_i
        "first_last":  the mean of "mean" of the first block's and of the last block's output
        "cls":         h of the first token
        "max":         component by component, the maximum over the tokens
        "last":        h of the last token

    Padding changes nothing. A row without tokens gives 0. What is in float32 is never rounded to
    the compute dtype.

    Args:
        mode: one of these. Defaults to "mean".

    Call arguments:
        inputs: (..., n, d); for "first_last" a list of two such tensors.
        mask: bool (..., n), true = token. None: all are tokens.

    Returns:
        float32 (..., d).

    Raises:
        ValueError: for another mode, or if "first_last" does not get two tensors.

    Example:

    >>> import numpy as np
    >>> hidden, mask = np.array([[[1.0], [3.0], [9.0]]]), np.array([[True, True, False]])
    >>> float(Pooling()(hidden, mask=mask)[0, 0])
    2.0

    Source: Nils Reimers and Iryna Gurevych, Sentence-BERT, 2019, https://arxiv.org/abs/1908.10084;
    "first_last": Jianlin Su et al., Whitening Sentence Representations for Better Semantics and
    Faster Retrieval, 2021, https://arxiv.org/abs/2103.15316
    """

    MODES = ("mean", "first_last", "cls", "max", "last")

    def __init__(self, mode="mean", **kwargs):
        super().__init__(**kwargs)
        if mode not in self.MODES:
            raise ValueError(f"The pooling is one of {self.MODES}. Received: {mode=}")
        self.mode = mode
        self.supports_masking = True
        self.autocast = False

    def call(self, inputs, mask=None):
        if self.mode != "first_last":
            return pool(inputs, mask, self.mode)
        self._check_two(inputs)
        if isinstance(mask, (list, tuple)):  # Keras collects the masks of the tensors
            mask = mask[0]
        first, last = (pool(hidden, mask) for hidden in inputs)
        return (first + last) / 2.0

    def _check_two(self, inputs):
        if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
            raise ValueError(
                "The pooling first_last takes a list of two tensors, of the first and of the last "
                f"block. Received: {inputs!r:.80}"
            )

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def compute_output_shape(self, input_shape):
        shape = input_shape[0] if self.mode == "first_last" else input_shape
        return (*shape[:-2], shape[-1])

    def compute_output_spec(self, inputs, mask=None):
        if self.mode == "first_last":
            self._check_two(inputs)
            inputs = inputs[0]
        return keras.KerasTensor((*inputs.shape[:-2], inputs.shape[-1]), "float32")

    def get_config(self):
        return {**super().get_config(), "mode": self.mode}
