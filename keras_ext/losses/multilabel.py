import keras
from keras import ops

from keras_ext.ops import MASKED, float32_scores, is_masked


def multilabel_categorical_crossentropy(y_true, y_pred):
    """Softmax cross-entropy for any number of true classes, with hard or soft labels.

        log(1 + sum_i (1 - t_i) exp(s_i)) + log(1 + sum_i t_i exp(-s_i))

    It pulls the scores of true classes above 0 and those of the others below, comparing them with
    each other and not one by one, so a few true classes among many thousands need no weights.
    A class is predicted where its score is above 0; for soft labels sigmoid(2 s) is the
    probability that minimises the loss.

    Args:
        y_true: (..., classes), labels in [0, 1].
        y_pred: (..., classes), scores without activation. A masked score (`ops.is_masked`)
            counts neither way, even where its label is not 0.

    Returns:
        float32 (...), the loss summed over the classes.

    Raises:
        ValueError: if the shapes differ.

    Example:

    >>> import numpy as np
    >>> loss = multilabel_categorical_crossentropy(np.array([[1, 0]]), np.array([[0.0, 0.0]]))
    >>> print(f"{float(loss[0]):.4f}")  # 2 log 2
    1.3863

    Source: Jianlin Su et al., ZLPR: A Novel Loss for Multi-label Classification, 2022,
    https://arxiv.org/abs/2208.02955; https://kexue.fm/archives/7359,
    https://kexue.fm/archives/9064
    """
    scores = float32_scores(y_pred)
    labels = ops.cast(y_true, "float32")
    if not can_be_equal(labels.shape, scores.shape):
        raise ValueError(
            "Labels and scores have the same shape (..., classes). "
            f"Received: y_true.shape={tuple(labels.shape)}, y_pred.shape={tuple(scores.shape)}"
        )
    masked = is_masked(scores)
    smallest = 1e-37  # the logarithm of 0 is never selected, but must stay finite
    negative = scores + ops.log(ops.maximum(1.0 - labels, smallest))
    positive = ops.log(ops.maximum(labels, smallest)) - scores
    # Compared so that a label that is NaN shows in the loss.
    negative = ops.where(ops.logical_or(masked, labels >= 1.0), MASKED, negative)
    positive = ops.where(ops.logical_or(masked, labels <= 0.0), MASKED, positive)
    return log1p_sumexp(negative) + log1p_sumexp(positive)


def can_be_equal(shape, other):
    """Whether two shapes agree where both are known; None is a size that is not known yet."""
    pairs = zip(shape, other, strict=False)
    return len(shape) == len(other) and all(None in pair or pair[0] == pair[1] for pair in pairs)


def log1p_sumexp(scores):
    """`log(1 + sum(exp(scores)))` over the last axis; masked scores add nothing."""
    return ops.softplus(ops.logsumexp(scores, axis=-1))


@keras.saving.register_keras_serializable(package="keras_ext")
class MultilabelCategoricalCrossentropy(keras.losses.Loss):
    """Softmax cross-entropy for any number of true classes: the class for `compile`.

    Computes `multilabel_categorical_crossentropy`, which has the formula and the source.
    Keras casts scores to float32 before they come here, so a score that was masked with the
    lowest float16 number counts as an ordinary one.

    Args:
        reduction: how the losses of a batch become one, as in `keras.losses.Loss`.
        name: name of the loss.
        **kwargs: `dtype` of `keras.losses.Loss`.

    Example:

    >>> model = keras.Sequential([keras.layers.Dense(5)])
    >>> model.compile(loss=MultilabelCategoricalCrossentropy())
    """

    def __init__(
        self,
        reduction="sum_over_batch_size",
        name="multilabel_categorical_crossentropy",
        **kwargs,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)

    def call(self, y_true, y_pred):
        return multilabel_categorical_crossentropy(y_true, y_pred)
