"""Losses of rows whose mean is over the examples of a batch, on one device or several."""

import keras
from keras import ops

from keras_ext.losses import Matryoshka
from keras_ext.ops.replicas import replica_count
from keras_ext.optimizers.replicas import sum_over_replicas


@keras.saving.register_keras_serializable(package="keras_ext")
class MeanOverExamples(keras.losses.Loss):
    """The mean of a loss of rows, by weights, over the rows of all replicas.

        L = sum_i w_i l_i / sum_i w_i

    So rows that fill up a batch, of weight 0, do not count, wherever they lie: Keras' own mean of
    each replica would give the few rows of the last one the weight of a whole one.

    Args:
        loss: `keras.losses.Loss` whose `call` gives (b,), or a function `(y_true, y_pred) -> (b,)`.
        name: name of the loss.
        **kwargs: `reduction` (the one that Keras applies to what is weighted here: "sum") and
            `dtype` of `keras.losses.Loss`.
    """

    def __init__(self, loss, name="mean_over_examples", reduction="sum", **kwargs):
        if isinstance(loss, dict):
            loss = keras.saving.deserialize_keras_object(loss)
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.loss = loss

    def __call__(self, y_true, y_pred, sample_weight=None):
        if sample_weight is None:
            sample_weight = ops.ones((ops.shape(y_pred)[0],))
        weights = ops.cast(sample_weight, self.dtype)
        total = ops.sum(weights)
        if replica_count() is not None:
            (total,) = sum_over_replicas([total])
        return super().__call__(y_true, y_pred, ops.divide_no_nan(weights, total))

    def call(self, y_true, y_pred):
        if len(y_pred.shape) == len(y_true.shape) + 1 and y_pred.shape[-1] == 1:
            y_true = ops.expand_dims(y_true, -1)  # else the two would broadcast to (b, b)
        return getattr(self.loss, "call", self.loss)(y_true, y_pred)

    def get_config(self):
        return {**super().get_config(), "loss": keras.saving.serialize_keras_object(self.loss)}


def mean_over_examples(loss):
    """A loss or its name as a loss whose mean is over the examples of a batch, not its rows."""
    loss = keras.losses.get(loss)
    if isinstance(loss, Matryoshka):
        part = mean_over_examples(loss.loss)
        if part is loss.loss:
            return loss
        part = keras.saving.serialize_keras_object(part)
        return Matryoshka.from_config({**loss.get_config(), "loss": part, "reduction": "sum"})
    if not isinstance(loss, keras.losses.Loss):
        return MeanOverExamples(loss)
    whole = type(loss).__call__ is not keras.losses.Loss.__call__  # it takes care of weights itself
    means = loss.reduction in ("sum_over_batch_size", "mean", "mean_with_sample_weight")
    return loss if whole or not means else MeanOverExamples(loss, dtype=loss.dtype)
