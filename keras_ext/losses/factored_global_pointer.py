import keras
from keras import ops

from keras_ext.losses.multilabel import log1p_sumexp
from keras_ext.ops import (
    MASKED,
    factored_logsumexp,
    factored_mask,
    first_occurrences,
    float32_factors,
    span_labels,
    split_factors,
)
from keras_ext.ops.labels import label_tensor, nan_unless_integers


def factored_global_pointer_crossentropy(y_true, y_pred, heads, head_size, tril_mask=True):
    """`global_pointer_crossentropy` of Efficient GlobalPointer, computed from the factors.

    The same value and gradient, but no (b, heads, n, n) tensor: the sum over all pairs comes from
    `ops.factored_logsumexp`, at a cost that hardly grows with the number of types. Pairs that are
    gold for any type are left out of that sum and added one by one for every type, since taking
    them away afterwards would cancel.

    Args:
        y_true: the gold spans, (b, k, 3) `type, start, end` with inclusive end, padded with -1.
            Repeated spans count once; spans out of range or on masked pairs count not at all. With
            a number in them that is no integer, such as NaN, the loss is NaN.
        y_pred: (b, n, 2 * (head_size + heads)), the output of
            `EfficientGlobalPointer(factored=True)`.
        heads: int, the number of entity types.
        head_size: int, the width of query and key.
        tril_mask: bool, whether pairs with end < start are excluded.

    Returns:
        float32 (b,), the mean over types.

    Raises:
        ValueError: if the shapes do not fit heads and head_size, or if an array of labels holds
            what is no integer.

    Example:

    >>> import numpy as np
    >>> factored = np.zeros((1, 3, 2 * (4 + 2)), "float32")
    >>> spans = np.array([[[0, 1, 2], [-1, -1, -1]]])
    >>> loss = factored_global_pointer_crossentropy(spans, factored, heads=2, head_size=4)
    >>> print(f"{float(loss[0]):.4f}")
    2.2154
    """
    factored = float32_factors(ops.convert_to_tensor(y_pred), head_size)
    length, channels = ops.shape(factored)[1], factored.shape[-1]
    labels = label_tensor(y_true)
    types, starts, ends, valid = span_labels(labels, heads, length)
    rows = ops.arange(ops.shape(factored)[0], dtype="int32")[:, None] * length

    def factors_at(tokens):
        flat = ops.reshape(factored, (-1, channels))
        return split_factors(ops.take(flat, rows + tokens, axis=0), heads, head_size)

    query, _, start_bias, _ = factors_at(starts)  # (b, k, ...)
    _, key, _, end_bias = factors_at(ends)
    cell_scores = ops.sum(query * key, axis=-1, keepdims=True) + start_bias + end_bias
    tokens = ops.logical_and(factored_mask(start_bias), factored_mask(end_bias))
    valid = ops.logical_and(valid, tokens)
    if tril_mask:
        valid = ops.logical_and(valid, starts <= ends)

    # One entry stands for each cell that is gold for some type; `gold` says for which types.
    cells = starts * length + ends
    distinct = first_occurrences(cells, valid)[..., None]  # (b, k, 1)
    of_type = ops.logical_and(types[..., None] == ops.arange(heads), valid[..., None])
    same_cell = ops.cast(ops.equal(cells[:, :, None], cells[:, None, :]), "float32")
    gold = ops.matmul(same_cell, ops.cast(of_type, "float32")) > 0.0  # (b, k, heads)
    positive = ops.where(ops.logical_and(distinct, gold), -cell_scores, MASKED)
    negative = ops.where(ops.logical_and(distinct, ops.logical_not(gold)), cell_scores, MASKED)

    rest = factored_logsumexp(factored, heads, head_size, tril_mask, (cells, valid))  # (b, heads)
    # The logarithm of the sum of both parts; the first is at least 0 and holds the 1.
    negative = rest + ops.softplus(ops.logsumexp(negative, axis=1) - rest)
    positive = log1p_sumexp(ops.transpose(positive, (0, 2, 1)))
    return ops.mean(negative + positive, axis=-1) * nan_unless_integers(labels, axis=(1, 2))


@keras.saving.register_keras_serializable(package="keras_ext")
class FactoredGlobalPointerCrossentropy(keras.losses.Loss):
    """Cross-entropy over all pairs from factored scores: the class for `compile`.

    Computes `factored_global_pointer_crossentropy`, which has the formula.

    Args:
        heads: int, the number of entity types.
        head_size: int, the width of query and key.
        tril_mask: bool, whether pairs with end < start are excluded.
        reduction: how the losses of a batch become one, as in `keras.losses.Loss`.
        name: name of the loss.
        **kwargs: `dtype` of `keras.losses.Loss`.

    Example:

    >>> import keras_ext
    >>> head = keras_ext.layers.EfficientGlobalPointer(heads=3, head_size=8, factored=True)
    >>> model = keras.Sequential([head])
    >>> model.compile(loss=FactoredGlobalPointerCrossentropy(heads=3, head_size=8))
    """

    def __init__(
        self,
        heads,
        head_size,
        tril_mask=True,
        reduction="sum_over_batch_size",
        name="factored_global_pointer_crossentropy",
        **kwargs,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.heads = heads
        self.head_size = head_size
        self.tril_mask = tril_mask

    def call(self, y_true, y_pred):
        return factored_global_pointer_crossentropy(
            y_true, y_pred, self.heads, self.head_size, self.tril_mask
        )

    def get_config(self):
        return {
            **super().get_config(),
            "heads": self.heads,
            "head_size": self.head_size,
            "tril_mask": self.tril_mask,
        }
