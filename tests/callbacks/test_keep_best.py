import keras
import numpy as np
import pytest

from keras_ext.callbacks.keep_best import KeepBest
from keras_ext.callbacks.optimizer_monitor import not_finite
from keras_ext.optimizers import Lookahead, NonFiniteGuard, Tiger

X = np.ones((4, 2), "float32")
BAD = np.where(np.arange(4)[:, None] == 1, np.nan, X)


def trained(x, scores=None, optimizer="sgd", checks=True, epochs=None):
    """A model trained with its best weights kept, the weights after each epoch, and the history."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    kept, left = [], list(scores or [])
    keep = KeepBest(
        model, (lambda: {"f1": left.pop(0)}) if scores else None, "f1", checks, averaged=False
    )
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: (
            keep.check(epoch, logs),
            kept.append([weight.copy() for weight in model.get_weights()]),
        )
    )
    epochs = epochs or len(left) or 2
    history = model.fit(x, 9 * x[:, :1], 1, epochs, callbacks=[watch, keep], verbose=0)
    keep.restore()
    return model, kept, history.history


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scores", "best"),
    [([0.5, 0.75, 0.25], 1), ([0.5, 0.5, 0.25], 1), ([np.nan, 0.5, np.nan], 1), (None, -1)],
)
def test_the_weights_of_the_best_epoch_come_back(scores, best):
    model, kept, history = trained(X, scores, epochs=3)
    for weight, expected in zip(model.get_weights(), kept[best], strict=True):
        np.testing.assert_array_equal(weight, expected)
    if scores:
        np.testing.assert_array_equal(history["f1"], scores)


def test_training_that_is_not_finite_ends():
    with pytest.raises(RuntimeError, match="the loss of epoch 1 is nan"):
        trained(BAD)
    weight = keras.Variable([1.0, np.inf], name="broken")
    good = [keras.Variable([1.0, 2.0]), keras.Variable([3], dtype="int32")]
    assert not_finite([*good, weight]) == [weight.path]
    assert not_finite(good) == not_finite([]) == []


@pytest.mark.parametrize("make", [lambda: NonFiniteGuard("sgd"), lambda: Lookahead(Tiger())])
def test_a_batch_that_an_optimizer_skipped_does_not_end_it(make):
    # Its loss makes the mean of the epoch NaN.
    model, kept, history = trained(BAD, optimizer=make())
    assert np.isnan(history["loss"]).all() and len(kept) == 2
    assert not_finite(model.weights) == []
