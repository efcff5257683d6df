"""The loss of a batch that is filled up with rows of weight 0 is that of its examples."""

import keras
import numpy as np
import pytest

from keras_ext.losses import InfoNCE, Matryoshka
from keras_ext.tasks.mean_over_examples import MeanOverExamples, mean_over_examples

RANDOM = np.random.default_rng(0)
TRUE, PREDICTED = RANDOM.random((5, 8)).astype("float32"), RANDOM.random((5, 8)).astype("float32")
WEIGHTS = np.array([2, 1, 0.5, 0, 0], "float32")


def by_hand(width=8):
    rows = ((TRUE - PREDICTED)[:, :width] ** 2).mean(axis=1)
    return (WEIGHTS * rows).sum() / WEIGHTS.sum()


def squares(y_true, y_pred):
    return keras.ops.mean((y_true - y_pred) ** 2, -1)


@pytest.mark.parametrize("loss", ["mse", keras.losses.MeanSquaredError(), squares])
def test_the_mean_is_over_the_examples(loss):
    found = mean_over_examples(loss)(TRUE, PREDICTED, WEIGHTS)
    np.testing.assert_allclose(found, by_hand(), rtol=1e-5)


def test_every_part_of_matryoshka_is_a_mean_over_the_examples():
    loss = Matryoshka(keras.losses.MeanSquaredError(), [8, 2], [1.0, 3.0])
    found = mean_over_examples(loss)(TRUE, PREDICTED, WEIGHTS)
    np.testing.assert_allclose(found, by_hand() + 3 * by_hand(2), rtol=1e-5)


def test_one_row_of_one_number_is_not_broadcast():
    true, predicted = TRUE[:, 0], PREDICTED[:, :1]
    found = mean_over_examples("mse")(true, predicted, WEIGHTS)
    rows = (true - predicted[:, 0]) ** 2
    np.testing.assert_allclose(found, (WEIGHTS * rows).sum() / WEIGHTS.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [InfoNCE(), Matryoshka(InfoNCE(), [4]), keras.losses.MeanSquaredError(reduction="sum")],
)
def test_losses_that_weigh_for_themselves_stay(loss):
    assert mean_over_examples(loss) is loss


def test_it_is_saved_with_what_it_wraps():
    loss = mean_over_examples(keras.losses.Huber(0.5))
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(copy, MeanOverExamples) and copy.get_config() == loss.get_config()
