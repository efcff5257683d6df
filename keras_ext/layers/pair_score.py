import keras

from keras_ext.layers.pair_classifier import check_pairs
from keras_ext.ops import score_function


@keras.saving.register_keras_serializable(package="keras_ext")
class PairScore(keras.layers.Layer):
    """How alike the two vectors of a pair are, as an output that losses of Keras take.

    With `loss="mse"` it is the regression of the cosine.

    Args:
        score: "cosine", "dot" or "angle", as in `ops.score_function`. Defaults to "cosine".
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: (batch, 2, d).

    Returns:
        float32 (batch, 1), whatever the policy. The last axis is what Keras takes the mean over:
        for (batch,) its loss would be one number, and sample weights would weigh nothing. Labels
        are (batch,) or (batch, 1).

    Raises:
        ValueError: for another score, or inputs of another shape.

    Example:

    >>> import numpy as np
    >>> tuple(PairScore()(np.array([[[1.0, 0.0], [0.0, 2.0]]], "float32")).shape)
    (1, 1)

    Source: Nils Reimers, Iryna Gurevych, Sentence-BERT: Sentence Embeddings using Siamese
    BERT-Networks, 2019, https://arxiv.org/abs/1908.10084
    """

    def __init__(self, score="cosine", **kwargs):
        super().__init__(**kwargs)
        if not isinstance(score, str):
            raise ValueError(f"Expected the name of a score. Received: {score=}")
        score_function(score)
        self.score = score
        self.autocast = False

    def build(self, input_shape):
        check_pairs(input_shape)

    def call(self, inputs):
        scores = score_function(self.score)(inputs[:, 0], inputs[:, 1])  # (b,)
        return scores[:, None]

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype="float32")

    def get_config(self):
        return {**super().get_config(), "score": self.score}
