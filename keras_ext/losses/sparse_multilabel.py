import keras
from keras import ops

from keras_ext.losses.multilabel import log1p_sumexp
from keras_ext.ops import MASKED, first_occurrences, float32_scores, is_masked, mask_labels
from keras_ext.ops.labels import integer_labels, label_tensor, nan_unless_integers


def sparse_multilabel_categorical_crossentropy(y_true, y_pred, mask_zero=False, stable=True):
    """`multilabel_categorical_crossentropy` from the indices of the true classes.

        log(1 + sum_{i false} exp(s_i)) + log(1 + sum_{i true} exp(-s_i))

    Exact for every input. The published form takes the true classes out of the first sum by
    subtraction: where one of them dominates that sum, the difference is lost to rounding, the
    loss turns negative and the gradient pushes the true score down.

    Args:
        y_true: (..., k), class indices padded with -1, or with 0 where `mask_zero`. Repeated
            indices count once; indices out of range and masked scores count not at all. With one
            that is no integer, such as NaN, the loss is NaN.
        y_pred: (..., classes), scores without activation.
        mask_zero: bool. If true, 0 is padding and class 0 is given up, as in bert4keras.
        stable: bool. False computes the published formula, for comparison only.

    Returns:
        float32 (...).

    Raises:
        ValueError: if the ranks differ, if the labels are floats and cannot hold all indices, or if
            an array of labels holds what is no integer.

    Example:

    >>> import numpy as np
    >>> scores = np.array([[15.0] + [-8.0] * 10], "float32")
    >>> loss = sparse_multilabel_categorical_crossentropy(np.array([[0, -1]]), scores)
    >>> print(f"{float(loss[0]):.5f}")
    0.00335

    Source: Jianlin Su, multilabel softmax and cross-entropy, the sparse version, 2020 and 2022,
    https://kexue.fm/archives/7359
    """
    scores, labels = float32_scores(y_pred), label_tensor(y_true)
    classes = scores.shape[-1]
    if len(labels.shape) != len(scores.shape):
        raise ValueError(
            "Labels (..., k) and scores (..., classes) have the same rank. "
            f"Received: y_true.shape={tuple(labels.shape)}, y_pred.shape={tuple(scores.shape)}"
        )
    if "float" in keras.backend.standardize_dtype(labels.dtype) and classes > 2**24:
        raise ValueError(
            "float32 labels (Keras' losses cast labels) hold integers up to 2**24 exactly; call "
            f"the function with integer labels. Received: y_pred.shape={tuple(scores.shape)}"
        )
    if labels.shape[-1] == 0:
        labels = ops.full_like(scores[..., :1], -1)  # padding instead of nothing
    leading, shown = ops.shape(scores)[:-1], nan_unless_integers(labels, axis=-1)
    scores = ops.reshape(scores, (-1, classes))
    labels = ops.reshape(integer_labels(labels), (-1, ops.shape(labels)[-1]))
    valid = ops.logical_and(labels >= (1 if mask_zero else 0), labels < classes)
    labels = ops.where(valid, labels, 0)
    if mask_zero:
        scores = ops.where(ops.arange(classes) == 0, MASKED, scores)
    true_scores = ops.take_along_axis(scores, labels, axis=-1)  # (b, k)
    valid = ops.logical_and(valid, ops.logical_not(is_masked(true_scores)))
    valid = first_occurrences(labels, valid)
    if stable:
        negative = log1p_sumexp(mask_labels(scores, labels, valid))
    else:
        negative = _published_negative(scores, ops.where(valid, true_scores, MASKED))
    loss = negative + log1p_sumexp(ops.where(valid, -true_scores, MASKED))
    return ops.reshape(loss, leading) * shown


def _published_negative(scores, true_scores):
    # The 0 is appended as published: so large are its errors that they depend on such details.
    all_sum = ops.logsumexp(ops.pad(scores, [[0, 0], [0, 1]]), axis=-1)
    true_share = ops.exp(ops.logsumexp(true_scores, axis=-1) - all_sum)
    return all_sum + ops.log(ops.clip(1.0 - true_share, 1e-7, 1.0))


@keras.saving.register_keras_serializable(package="keras_ext")
class SparseMultilabelCategoricalCrossentropy(keras.losses.Loss):
    """Multilabel cross-entropy from class indices: the class for `compile`.

    Computes `sparse_multilabel_categorical_crossentropy`, which has the formula and the source.

    Args:
        mask_zero: bool. If true, labels are padded with 0 and class 0 is given up.
        stable: bool. False computes the published formula, for comparison only.
        reduction: how the losses of a batch become one, as in `keras.losses.Loss`.
        name: name of the loss.
        **kwargs: `dtype` of `keras.losses.Loss`.

    Example:

    >>> model = keras.Sequential([keras.layers.Dense(5)])
    >>> model.compile(loss=SparseMultilabelCategoricalCrossentropy())
    """

    def __init__(
        self,
        mask_zero=False,
        stable=True,
        reduction="sum_over_batch_size",
        name="sparse_multilabel_categorical_crossentropy",
        **kwargs,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.mask_zero = mask_zero
        self.stable = stable

    def call(self, y_true, y_pred):
        return sparse_multilabel_categorical_crossentropy(
            y_true, y_pred, mask_zero=self.mask_zero, stable=self.stable
        )

    def get_config(self):
        return {**super().get_config(), "mask_zero": self.mask_zero, "stable": self.stable}
