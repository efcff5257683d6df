import keras
from keras import ops

from keras_ext.losses.multilabel import (
    can_be_equal,
    log1p_sumexp,
    multilabel_categorical_crossentropy,
)
from keras_ext.ops import (
    MASKED,
    first_occurrences,
    float32_scores,
    is_masked,
    mask_labels,
    span_labels,
)
from keras_ext.ops.labels import label_tensor, nan_unless_integers


def global_pointer_crossentropy(y_true, y_pred):
    """Multilabel cross-entropy over all (start, end) pairs, the mean over entity types.

        1 / heads sum_h [ log(1 + sum_{(i,j) not gold} exp(s_h(i,j)))
                          + log(1 + sum_{(i,j) gold} exp(-s_h(i,j))) ]

    Args:
        y_true: the gold spans, (b, k, 3) `type, start, end` with inclusive end, padded with -1;
            or labels in [0, 1] for every pair, (b, heads, n, n). Repeated spans count once; spans
            out of range or on masked pairs count not at all. With a number in them that is no
            integer, such as NaN, the loss is NaN.
        y_pred: (b, heads, n, n), axis 2 the start, axis 3 the end, the output of `GlobalPointer`
            or `EfficientGlobalPointer`.

    Returns:
        float32 (b,).

    Raises:
        ValueError: for labels of another shape, scores that are not (b, heads, n, n), or an array
            of spans that holds what is no integer.

    Example:

    >>> import numpy as np
    >>> scores = np.zeros((1, 2, 3, 3), "float32")
    >>> spans = np.array([[[0, 1, 2], [-1, -1, -1]]])
    >>> print(f"{float(global_pointer_crossentropy(spans, scores)[0]):.4f}")
    2.5965

    Source: Jianlin Su et al., Global Pointer: Novel Efficient Span-based Approach for Named
    Entity Recognition, 2022, https://arxiv.org/abs/2208.03054; https://kexue.fm/archives/8373
    """
    scores, labels = float32_scores(y_pred), ops.convert_to_tensor(y_true)
    square = len(scores.shape) == 4 and scores.shape[2] == scores.shape[3]
    dense = can_be_equal(labels.shape, scores.shape)
    if not square or not (dense or len(labels.shape) == 3):
        raise ValueError(
            "Scores are (batch, heads, length, length); labels are spans (batch, count, 3) or of "
            f"the shape of the scores. Received: y_true.shape={tuple(labels.shape)}, "
            f"y_pred.shape={tuple(scores.shape)}"
        )
    heads, length = scores.shape[1], ops.shape(scores)[2]
    if dense:
        per_type = (-1, heads, length * length)
        losses = multilabel_categorical_crossentropy(
            ops.reshape(labels, per_type), ops.reshape(scores, per_type)
        )
        return ops.mean(losses, axis=-1)
    labels = label_tensor(y_true)
    types, starts, ends, valid = span_labels(labels, heads, length)
    cells = (types * length + starts) * length + ends  # (b, k)
    scores = ops.reshape(scores, (-1, heads * length * length))
    gold_scores = ops.take_along_axis(scores, cells, axis=-1)
    valid = ops.logical_and(valid, ops.logical_not(is_masked(gold_scores)))
    valid = first_occurrences(cells, valid)
    negative = mask_labels(scores, cells, valid)
    negative = ops.reshape(negative, (-1, heads, length * length))
    of_type = ops.logical_and(types[:, None] == ops.arange(heads)[:, None], valid[:, None])
    positive = ops.where(of_type, -gold_scores[:, None], MASKED)  # (b, heads, k)
    losses = ops.mean(log1p_sumexp(negative) + log1p_sumexp(positive), axis=-1)
    return losses * nan_unless_integers(labels, axis=(1, 2))


@keras.saving.register_keras_serializable(package="keras_ext")
class GlobalPointerCrossentropy(keras.losses.Loss):
    """Cross-entropy over all (start, end) pairs: the class for `compile`.

    Computes `global_pointer_crossentropy`, which has the formula and the source.

    Args:
        reduction: how the losses of a batch become one, as in `keras.losses.Loss`.
        name: name of the loss.
        **kwargs: `dtype` of `keras.losses.Loss`.

    Example:

    >>> import keras_ext
    >>> model = keras.Sequential([keras_ext.layers.GlobalPointer(heads=3)])
    >>> model.compile(loss=GlobalPointerCrossentropy())
    """

    def __init__(
        self, reduction="sum_over_batch_size", name="global_pointer_crossentropy", **kwargs
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)

    def call(self, y_true, y_pred):
        return global_pointer_crossentropy(y_true, y_pred)
