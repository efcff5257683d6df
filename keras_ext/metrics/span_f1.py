import keras
from keras import ops

from keras_ext.ops import (
    first_occurrences,
    float32_factors,
    is_masked,
    mask_scores,
    span_labels,
    split_factors,
    valid_pairs,
)
from keras_ext.ops.labels import label_tensor, nan_unless_integers
from keras_ext.ops.settings import effective


@keras.saving.register_keras_serializable(package="keras_ext")
class SpanF1(keras.metrics.Metric):
    """F1 of predicted spans, over all that was seen since the last reset.

        F1 = 2 true positives / (predicted spans + gold spans)

    A span is predicted where its score is above the threshold and matches a gold span if type,
    start and end agree. The counts are of the whole corpus, so the figure is not the mean of the
    F1 of batches, and 0/0 is 0. It counts spans of tokens as the labels give them; what
    tokenisation lost is not in it: `score_entities` compares characters with the full truth.

    Args:
        heads: int, the number of entity types.
        head_size: int, the width of query and key; where `factored`, and only there.
        tril_mask: bool, whether pairs with end < start are excluded. Dense scores carry this mask.
        threshold: float, the score above which a span is predicted.
        factored: bool. True for the output of `EfficientGlobalPointer(factored=True)`, which is
            read one type at a time, false for scores (b, heads, n, n).
        name: name of the metric.
        **kwargs: `dtype` of `keras.metrics.Metric`.

    Call arguments:
        y_true: (b, k, 3) `type, start, end` with inclusive end, padded with -1. Repeated spans
            count once. With a number in them that is no integer, such as NaN, the F1 is NaN.
        y_pred: the scores.
        sample_weight: (b,) or None; multiplies the counts of each sample.

    Raises:
        ValueError: if `factored` and no head_size is given, or one if not, if an array of labels
            holds what is no integer, or if shapes do not fit.

    Example:

    >>> import numpy as np
    >>> scores = np.full((1, 1, 2, 2), -1.0, "float32")
    >>> scores[0, 0, 0, 1] = scores[0, 0, 1, 1] = 3.0
    >>> metric = SpanF1(heads=1)
    >>> metric.update_state(np.array([[[0, 0, 1]]]), scores)
    >>> round(float(metric.result()), 4)  # precision 1/2, recall 1
    0.6667
    """

    def __init__(
        self,
        heads,
        head_size=None,
        tril_mask=True,
        threshold=0.0,
        factored=False,
        name="span_f1",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        if factored and head_size is None:
            raise ValueError(
                f"Factored scores cannot be read without head_size. Received: {head_size=}"
            )
        self.heads = heads
        self.head_size = effective("head_size", head_size, None, "factored=True", factored)
        self.tril_mask = tril_mask
        self.threshold = threshold
        self.factored = factored
        # float32 whatever the policy: bfloat16 stops counting at 256.
        self.true_positives = self._counter("true_positives")
        self.predicted = self._counter("predicted")
        self.gold = self._counter("gold")

    def _counter(self, name):
        return self.add_variable((), initializer="zeros", dtype="float32", name=name)

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_pred = ops.convert_to_tensor(y_pred)
        if self.factored:
            y_pred = float32_factors(y_pred, self.head_size)
        else:
            self._check_dense(y_pred)
        length = ops.shape(y_pred)[-2]
        labels = label_tensor(y_true)
        types, starts, ends, valid = span_labels(labels, self.heads, length)
        cells = (types * length + starts) * length + ends
        valid = first_occurrences(cells, valid)  # (b, k)
        if self.factored:
            gold_scores = self._factored_scores_at(y_pred, types, starts, ends)
            predicted = self._factored_counts(y_pred)
        else:
            flat = ops.reshape(y_pred, (-1, self.heads * length * length))
            gold_scores = ops.take_along_axis(flat, cells, axis=-1)
            predicted = ops.sum(ops.cast(self._above(flat), "float32"), axis=-1)
        found = ops.logical_and(valid, self._above(gold_scores))
        counts = ops.stack(  # (3, b)
            [
                ops.sum(ops.cast(found, "float32"), axis=-1),
                predicted,
                ops.sum(ops.cast(valid, "float32"), axis=-1),
            ]
        )
        counts = counts * nan_unless_integers(labels, axis=(1, 2))
        if sample_weight is not None:
            counts = counts * ops.reshape(ops.cast(sample_weight, "float32"), (-1,))
        totals = ops.sum(counts, axis=-1)
        self.true_positives.assign_add(totals[0])
        self.predicted.assign_add(totals[1])
        self.gold.assign_add(totals[2])

    def _above(self, scores):
        return ops.logical_and(scores > self.threshold, ops.logical_not(is_masked(scores)))

    def _check_dense(self, scores):
        shape = tuple(scores.shape)
        if len(shape) != 4 or shape[1] != self.heads or shape[2] != shape[3]:
            raise ValueError(
                f"Scores of {self.heads} types have the shape (batch, {self.heads}, length, "
                f"length). Received: shape={shape}"
            )

    def _factored_scores_at(self, factored, types, starts, ends):
        query, key, start_bias, end_bias = split_factors(factored, self.heads, self.head_size)

        def at(factor, tokens):
            return ops.take_along_axis(factor, tokens[..., None], axis=1)  # (b, k, channels)

        biases = at(start_bias, starts) + at(end_bias, ends)  # (b, k, heads)
        biases = ops.take_along_axis(biases, types[..., None], axis=-1)[..., 0]
        scores = ops.sum(at(query, starts) * at(key, ends), axis=-1) + biases
        return mask_scores(scores, starts <= ends) if self.tril_mask else scores

    def _factored_counts(self, factored):
        query, key, start_bias, end_bias = split_factors(factored, self.heads, self.head_size)
        pairs = ops.matmul(query, ops.transpose(key, (0, 2, 1)))
        everywhere = ops.ones(ops.shape(start_bias)[:2], "bool")
        pairs = mask_scores(pairs, valid_pairs(everywhere, self.tril_mask))

        def add_type(index, counts):
            start, end = (ops.take(bias, index, axis=-1) for bias in (start_bias, end_bias))
            above = self._above(pairs + start[:, :, None] + end[:, None, :])  # (b, n, n)
            return counts + ops.sum(ops.cast(above, "float32"), axis=(1, 2))

        return ops.fori_loop(0, self.heads, add_type, ops.zeros_like(start_bias[:, 0, 0]))

    def result(self):
        total = self.predicted + self.gold
        return 2.0 * self.true_positives / ops.where(total > 0.0, total, 1.0)

    def get_config(self):
        return {
            **super().get_config(),
            "heads": self.heads,
            "head_size": self.head_size,
            "tril_mask": self.tril_mask,
            "threshold": self.threshold,
            "factored": self.factored,
        }
