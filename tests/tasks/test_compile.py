"""`compile` of both tasks takes what Keras' takes, in Keras' order."""

import inspect

import keras
import pytest
from tasks.recognizers import make_recognizer, make_records
from tasks.sentences import make_encoder

from keras_ext.losses import InfoNCE
from keras_ext.optimizers import NonFiniteGuard

TASKS = pytest.mark.parametrize("make", [make_recognizer, make_encoder])


def own_loss(y_true, y_pred):
    return keras.ops.sum(y_pred, axis=(1, 2))


@TASKS
def test_the_order_is_that_of_keras(make):
    names = list(inspect.signature(make().compile).parameters)
    assert names[:2] == list(inspect.signature(keras.Model.compile).parameters)[1:3]


@pytest.mark.slow
@TASKS
@pytest.mark.parametrize(
    ("optimizer", "loss"),
    [
        (InfoNCE(), None),
        (keras.losses.MeanSquaredError(), "adam"),
        ("mse", None),
        (own_loss, None),
        (None, keras.optimizers.SGD()),
        (None, NonFiniteGuard("sgd")),
        (None, "adam"),
        ("mse", "adam"),
    ],
)
def test_the_other_order_is_told_of(make, optimizer, loss):
    task = make()
    with pytest.raises(ValueError, match=r"compile\(optimizer, loss\).*Received: optimizer="):
        task.compile(optimizer, loss)


@pytest.mark.slow
@TASKS
@pytest.mark.parametrize("optimizer", ["adam", keras.optimizers.SGD(0.1), None])
def test_an_optimizer_and_a_loss_by_place(make, optimizer):
    make().compile(optimizer, own_loss)
    make().compile(optimizer, None)


@TASKS
def test_what_is_neither_is_keras_own_error(make):
    with pytest.raises(ValueError, match="no_such_thing"):
        make().compile("no_such_thing")
    with pytest.raises(ValueError, match="no_such_thing"):
        make().compile(loss="no_such_thing")


@pytest.mark.slow
def test_a_compile_that_is_refused_changes_nothing():
    recognizer, records = make_recognizer(), make_records()[:4]
    recognizer.compile("sgd")
    with pytest.raises(ValueError, match="no_such_optimizer"):
        recognizer.compile("no_such_optimizer", huge_loss)
    history = recognizer.fit(records, records, epochs=1, verbose=0).history
    assert 0 < history["loss"][0] < 1e6 and 0 < history["val_loss"][0] < 1e6


def huge_loss(spans, scores):
    # Not of the scores: those of padding are -1e30.
    return keras.ops.full(keras.ops.shape(scores)[:1], 1e9)
