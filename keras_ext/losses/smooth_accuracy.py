import keras
from keras import ops

from keras_ext.losses.multilabel import can_be_equal
from keras_ext.ops import MASKED, float32_scores, is_masked, smooth_step
from keras_ext.ops.settings import number


def smooth_accuracy(y_true, y_pred):
    """One minus the accuracy, with the probability of the label in place of right or wrong.

        1 - p_t,   p = softmax(y_pred)

    The accuracy counts where the largest score is that of the label, which has no gradient. Its
    smooth form is the expected accuracy of a guess drawn from p. The gradient p_t (p_j - [j = t])
    vanishes where the model is confident, right or wrong: a loss to end a training with, not one
    to begin with.

    Args:
        y_true: (...) integers, the labels. One that is no class, such as -1, has loss 1 and no
            gradient: leave it out by a sample weight of 0.
        y_pred: (..., classes), scores without activation. Masked ones (`ops.is_masked`) have
            probability 0.

    Returns:
        float32 (...).

    Raises:
        ValueError: if the shapes do not fit.

    Example:

    >>> import numpy as np
    >>> np.asarray(smooth_accuracy(np.array([1]), np.array([[0.0, 0.0]]))).tolist()
    [0.5]

    Source: Jianlin Su, smooth approximations of functions by a Dirac kernel, 2021,
    https://kexue.fm/archives/8718
    """
    scores = float32_scores(y_pred)
    labels = ops.cast(y_true, "int32")
    if not can_be_equal(labels.shape, scores.shape[:-1]):
        raise ValueError(
            "Expected labels (...) for scores (..., classes). "
            f"Received: y_true.shape={tuple(labels.shape)}, y_pred.shape={tuple(scores.shape)}"
        )
    scores = ops.where(is_masked(scores), MASKED, scores)  # no gradient, even where all are masked
    chosen = ops.cast(ops.one_hot(labels, scores.shape[-1]), "bool")
    # The sum of the others: 1 - p_t would cancel where p_t is near 1.
    others = ops.where(chosen, 0.0, ops.softmax(scores))
    return ops.sum(others, axis=-1)


def smooth_f1(y_true, y_pred, width=1.0, smoothing=1.0):
    """One minus the F1 of several labels, with a smooth step in place of the threshold 0.

        1 - (2 sum_i t_i p_i + smoothing) / (sum_i t_i + sum_i p_i + smoothing)
        p_i = sigmoid(y_pred_i / width)

    As `width` goes to 0, and without `smoothing`, it is one minus the F1 of the labels predicted
    where the score is above 0. All labels of a sample hang together in it; a sample without any
    has loss 0 if none is predicted.

    Args:
        y_true: (..., classes), labels in [0, 1].
        y_pred: (..., classes), scores without activation. Masked ones (`ops.is_masked`) count
            neither way.
        width: number above 0, of the step. Defaults to 1.
        smoothing: number of at least 0. With 0 a sample without labels has loss 1 whatever is
            predicted. Defaults to 1.

    Returns:
        float32 (...).

    Raises:
        ValueError: if the shapes differ, for a `width` of 0 or below or a negative `smoothing`.

    Example:

    >>> import numpy as np
    >>> loss = smooth_f1(np.array([[1, 0, 0]]), np.array([[9.0, -9.0, 9.0]]), smoothing=0)
    >>> print(f"{float(loss[0]):.3f}")  # one right, one too many: F1 is 2/3
    0.333

    Source: Jianlin Su, smooth approximations of functions by a Dirac kernel, 2021,
    https://kexue.fm/archives/8718
    """
    _check_step(width, smoothing)
    scores = float32_scores(y_pred)
    labels = ops.cast(y_true, "float32")
    if not can_be_equal(labels.shape, scores.shape):
        raise ValueError(
            "Labels and scores have the same shape (..., classes). "
            f"Received: y_true.shape={tuple(labels.shape)}, y_pred.shape={tuple(scores.shape)}"
        )
    masked = is_masked(scores)
    labels = ops.where(masked, 0.0, labels)
    predicted = ops.where(
        masked, 0.0, smooth_step(ops.where(masked, 0.0, scores), width, "logistic")
    )
    missed = labels * (1 - predicted) + (1 - labels) * predicted
    total = ops.sum(labels + predicted, axis=-1) + smoothing
    # (t + p - 2 t p) / total, each term of which is at least 0: nothing cancels near F1 = 1.
    return ops.sum(missed, axis=-1) / ops.maximum(total, 1e-37)


def _check_step(width, smoothing):
    if number("width", width) <= 0 or number("smoothing", smoothing) < 0:
        raise ValueError(
            "Expected a width above 0 and a smoothing of at least 0. "
            f"Received: {width=}, {smoothing=}"
        )


@keras.saving.register_keras_serializable(package="keras_ext")
class SmoothAccuracy(keras.losses.Loss):
    """One minus the expected accuracy: the class for `compile`.

    Computes `smooth_accuracy`, which has the formula and the source.

    Args:
        reduction: how the losses of a batch become one, as in `keras.losses.Loss`.
        name: name of the loss.
        **kwargs: `dtype` of `keras.losses.Loss`.

    Example:

    >>> model = keras.Sequential([keras.layers.Dense(5)])
    >>> model.compile(loss=SmoothAccuracy())
    """

    def __init__(self, reduction="sum_over_batch_size", name="smooth_accuracy", **kwargs):
        super().__init__(name=name, reduction=reduction, **kwargs)

    def call(self, y_true, y_pred):
        # Keras gives labels (b,) a last axis of 1.
        if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == 1:
            y_true = ops.squeeze(y_true, -1)
        return smooth_accuracy(y_true, y_pred)


@keras.saving.register_keras_serializable(package="keras_ext")
class SmoothF1(keras.losses.Loss):
    """One minus a smooth F1 of several labels: the class for `compile`.

    Computes `smooth_f1`, which has the formula and the source.

    Args:
        width: number above 0, of the step. Defaults to 1.
        smoothing: number of at least 0. Defaults to 1.
        reduction: how the losses of a batch become one, as in `keras.losses.Loss`.
        name: name of the loss.
        **kwargs: `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: as `smooth_f1`.

    Example:

    >>> model = keras.Sequential([keras.layers.Dense(5)])
    >>> model.compile(loss=SmoothF1(width=0.5))
    """

    def __init__(
        self,
        width=1.0,
        smoothing=1.0,
        reduction="sum_over_batch_size",
        name="smooth_f1",
        **kwargs,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        _check_step(width, smoothing)
        self.width = float(width)
        self.smoothing = float(smoothing)

    def call(self, y_true, y_pred):
        return smooth_f1(y_true, y_pred, self.width, self.smoothing)

    def get_config(self):
        return {**super().get_config(), "width": self.width, "smoothing": self.smoothing}
