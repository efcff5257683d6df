import keras
from keras import ops

PARTS = {
    "first": lambda u, v: u,
    "second": lambda u, v: v,
    # |u - v|; of an absolute value JAX takes the slope 1 at 0, which would push equal vectors apart.
    "difference": lambda u, v: (u - v) * ops.sign(u - v),
    "product": lambda u, v: u * v,
}


@keras.saving.register_keras_serializable(package="keras_ext")
class PairClassifier(keras.layers.Layer):
    """Scores of classes for pairs of vectors: the softmax head of SBERT, without the softmax.

        logits = [u; v; |u - v|] W + b

    For `keras.losses.SparseCategoricalCrossentropy(from_logits=True)`. The head is for training:
    afterwards the vectors alone are compared, by their cosine.

    Args:
        classes: int, number of classes.
        parts: list of what is concatenated, in this order, of "first" (u), "second" (v),
            "difference" (|u - v|) and "product" (u v, component by component). Defaults to the
            first three.
        kernel_initializer: initializer of W. Defaults to "glorot_uniform".
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: (batch, 2, d).

    Returns:
        float32 (batch, classes), computed in it whatever the policy: the difference of vectors that
        are almost equal is lost in half precision.

    Raises:
        ValueError: for `classes` below 1, an unknown, repeated or missing part, or inputs of
            another shape.

    Example:

    >>> import numpy as np
    >>> tuple(PairClassifier(3)(np.ones((4, 2, 8), "float32")).shape)
    (4, 3)

    Source: Nils Reimers, Iryna Gurevych, Sentence-BERT: Sentence Embeddings using Siamese
    BERT-Networks, 2019, https://arxiv.org/abs/1908.10084
    """

    def __init__(
        self,
        classes,
        parts=("first", "second", "difference"),
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if classes < 1:
            raise ValueError(f"The number of classes must be positive. Received: {classes=}")
        parts = list(parts)
        if not parts or len(set(parts)) < len(parts) or not set(parts) <= set(PARTS):
            raise ValueError(f"Parts are some of {list(PARTS)}, each once. Received: {parts=}")
        self.classes = classes
        self.parts = parts
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.autocast = False
        self.dense = keras.layers.Dense(
            classes, kernel_initializer=self.kernel_initializer, dtype="float32", name="dense"
        )

    def build(self, input_shape):
        check_pairs(input_shape)
        self.dense.build((input_shape[0], len(self.parts) * input_shape[-1]))

    def call(self, inputs):
        inputs = ops.cast(inputs, "float32")
        first, second = inputs[:, 0], inputs[:, 1]  # (b, d)
        parts = [PARTS[name](first, second) for name in self.parts]
        return self.dense(ops.concatenate(parts, axis=-1))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.classes)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype="float32")

    def get_config(self):
        return {
            **super().get_config(),
            "classes": self.classes,
            "parts": self.parts,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def check_pairs(shape):
    """Raises unless a shape is that of pairs of vectors."""
    if len(shape) != 3 or shape[1] not in (None, 2):
        raise ValueError(f"Pairs of vectors are (batch, 2, d). Received: shape={tuple(shape)}")
