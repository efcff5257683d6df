import keras
from keras import ops

from keras_ext.losses.multilabel import log1p_sumexp
from keras_ext.ops import MASKED, first_occurrences, float32_scores, is_masked, mask_labels
from keras_ext.ops.labels import integer_labels, label_tensor, nan_unless_integers


def sparse_multilabel_categorical_crossentropy(y_true, y_pred, mask_zero=False):
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
    negative = log1p_sumexp(mask_labels(scores, labels, valid))
    loss = negative + log1p_sumexp(ops.where(valid, -true_scores, MASKED))
    return ops.reshape(loss, leading) * shown


@keras.saving.register_keras_serializable(package="keras_ext")
class SparseMultilabelCategoricalCrossentropy(keras.losses.Loss):
    """Multilabel cross-entropy from class indices: the class for `compile`.

    Computes `sparse_multilabel_categorical_crossentropy`, which has the formula and the source.

    Args:
        mask_zero: bool. If true, labels are padded with 0 and class 0 is given up.
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
        reduction="sum_over_batch_size",
        name="sparse_multilabel_categorical_crossentropy",
        **kwargs,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.mask_zero = mask_zero

    def call(self, y_true, y_pred):
        return sparse_multilabel_categorical_crossentropy(y_true, y_pred, self.mask_zero)

    def get_config(self):
        return {**super().get_config(), "mask_zero": self.mask_zero}

    @classmethod
    def from_config(cls, config):
        # Earlier versions could compute the published formula, which is the same but for rounding.
        return super().from_config({name: v for name, v in config.items() if name != "stable"})
