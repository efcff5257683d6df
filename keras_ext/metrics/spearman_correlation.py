import keras
from keras import ops

from keras_ext.ops import score_function
from keras_ext.ops.settings import whole


@keras.saving.register_keras_serializable(package="keras_ext")
class SpearmanCorrelation(keras.metrics.Metric):
    """Spearman's rank correlation of labels and scores, over all rows since the last reset.

        rho = cov(R(y), R(s)) / sqrt(var(R(y)) var(R(s)))

    R(x) are the ranks of x; equal values share the mean of their ranks, as in
    `scipy.stats.spearmanr`. The figure is of the whole data, not the mean of batches, so all rows
    are kept, in float32, in two buffers of fixed size. The result is NaN where it is not defined or
    not known: after more rows than `capacity`, of fewer than two rows, where all labels or all
    scores are equal, and if a score is NaN.

    While a model trains, the rows come from its changing weights, and Keras asks for the result
    after every batch, which sorts both buffers; on validation data the result is exact. Each
    replica of a `tf.distribute` strategy would fill its own buffers: use one replica, or the
    function `spearman` on the outputs of `predict`.

    Args:
        score: "cosine", "dot", "angle" or a function of two tensors (b, d) that gives (b,). It
            turns pairs of vectors into scores.
        capacity: int, the most rows that are kept.
        name: name of the metric.
        **kwargs: `dtype` of `keras.metrics.Metric`.

    Call arguments:
        y_true: (b,) or (b, 1), the labels; only their order matters. A row whose label is NaN is
            left out, as by the loss `CoSENT`.
        y_pred: (b,) or (b, 1), scores; or (b, 2, d), pairs of vectors.
        sample_weight: (b,), (b, 1) or None. Rows of weight 0 are left out; all others count alike,
            since ranks have no weights.

    Raises:
        ValueError: if the score is unknown, the capacity is not positive, or `y_pred` has another
            shape.

    Example:

    >>> import numpy as np
    >>> metric = SpearmanCorrelation()
    >>> metric.update_state(np.array([0.0, 1.0, 5.0]), np.array([-0.3, 0.9, 0.7]))
    >>> round(float(metric.result()), 4)
    0.5
    """

    def __init__(self, score="cosine", capacity=16384, name="spearman", **kwargs):
        super().__init__(name=name, **kwargs)
        if isinstance(score, dict):  # a function, as it was saved
            score = keras.saving.deserialize_keras_object(score)
        self.score = score
        self.score_function = score_function(score)
        self.capacity = capacity = whole("capacity", capacity)
        # One place more than the capacity takes all rows that are not kept.
        self.labels = self.add_variable((capacity + 1,), "zeros", "float32", name="labels")
        self.scores = self.add_variable((capacity + 1,), "zeros", "float32", name="scores")
        self.count = self.add_variable((), "zeros", "int32", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        scores = self._scores(ops.convert_to_tensor(y_pred))
        labels = ops.reshape(ops.cast(y_true, "float32"), (-1,))
        kept = ops.logical_not(ops.isnan(labels))
        if sample_weight is not None:
            weight = ops.reshape(ops.convert_to_tensor(sample_weight), (-1,))
            kept = ops.logical_and(kept, ops.not_equal(weight, 0))
        places = self.count + ops.cumsum(ops.cast(kept, "int32")) - 1
        places = ops.where(kept, ops.minimum(places, self.capacity), self.capacity)[:, None]
        self.labels.assign(ops.scatter_update(self.labels, places, labels))
        self.scores.assign(ops.scatter_update(self.scores, places, scores))
        self.count.assign_add(ops.sum(ops.cast(kept, "int32")))

    def _scores(self, y_pred):
        shape = tuple(y_pred.shape)
        if len(shape) == 3 and shape[1] in (2, None):
            y_pred = self.score_function(y_pred[:, 0], y_pred[:, 1])
        elif len(shape) != 1 and (len(shape) != 2 or shape[1] not in (1, None)):
            raise ValueError(
                "Expected scores of the shape (batch,) or (batch, 1), or pairs of vectors of the "
                f"shape (batch, 2, width). Received: y_pred.shape={shape}"
            )
        return ops.reshape(ops.cast(y_pred, "float32"), (-1,))

    def result(self):
        valid = ops.cast(ops.arange(self.capacity, dtype="int32") < self.count, "float32")
        labels, scores = self.labels[:-1], self.scores[:-1]
        # Sorting by the labels and then by the scores leaves the ranks of both in one order.
        order, label_ranks = self._ranks(labels, valid)
        scores, valid = ops.take(scores, order), ops.take(valid, order)
        order, score_ranks = self._ranks(scores, valid)
        label_ranks, valid = ops.take(label_ranks, order), ops.take(valid, order)
        # The mean rank is known, and half integers of this size are exact.
        total = ops.cast(self.count, "float32")
        x, y = ((ranks - (total + 1.0) / 2.0) * valid for ranks in (label_ranks, score_ranks))
        x, y = x / self.capacity, y / self.capacity
        variances = ops.sum(x * x) * ops.sum(y * y)
        known = ops.logical_and(variances > 0.0, self.count <= self.capacity)
        nan = ops.any(ops.logical_and(ops.isnan(self.scores[:-1]), valid > 0.0))
        known = ops.logical_and(known, ops.logical_not(nan))
        rho = ops.sum(x * y) / ops.sqrt(ops.where(variances > 0.0, variances, 1.0))
        return ops.where(known, rho, float("nan"))

    def _ranks(self, values, valid):
        """The order that sorts the values, and in this order the ranks among the valid ones."""
        order = ops.argsort(values)
        values, valid = ops.take(values, order), ops.take(valid, order)
        changes = ops.cast(ops.not_equal(values[1:], values[:-1]), "int32")
        group = ops.pad(ops.cumsum(changes), [[1, 0]])
        sizes = ops.segment_sum(valid, group, num_segments=self.capacity)
        return order, ops.take(ops.cumsum(sizes) - (sizes - 1.0) / 2.0, group)

    def get_config(self):
        score = self.score
        score = keras.saving.serialize_keras_object(score) if callable(score) else score
        return {**super().get_config(), "score": score, "capacity": self.capacity}
