"""What fits of both tasks share: one trace, one tokenisation, warm shapes."""

import keras
import numpy as np
import pytest
from tasks.recognizers import make_recognizer, make_records
from tasks.sentences import SCORED, make_encoder

RECORDS = make_records()[:8]


def entities():
    recognizer = make_recognizer()
    return recognizer, RECORDS, {"batch_size": 4, "verbose": 0}


def sentences():
    return make_encoder(), SCORED[:16], {"batch_size": 8, "verbose": 0}


TASKS = pytest.mark.parametrize("make", [entities, sentences])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="traces are TensorFlow's")
@TASKS
def test_the_first_step_is_traced_once_and_a_second_fit_not_at_all(make):
    task, data, arguments = make()
    task.compile(learning_rate=0.01)
    task.fit(data, **arguments)
    model = task.model if make is entities else task._training.trained[None, True]
    functions = [model.train_function]
    slots = [variable.path for variable in model.optimizer.variables]
    task.fit([*data, *data], epochs=2, **arguments)
    assert [model.train_function] == functions
    assert [variable.path for variable in model.optimizer.variables] == slots


@TASKS
def test_a_default_optimizer_begins_anew_in_each_fit(make):
    """So a second fit from the same weights ends with the same weights, whatever came before."""
    task, data, arguments = make()
    start = task.model.get_weights()
    ends = []
    task.compile(learning_rate=0.01)
    for epochs in (2, 1, 2):
        task.model.set_weights(start)
        history = task.fit(data, epochs=epochs, **arguments)
        ends.append((history.history["loss"], task.model.get_weights()))
    np.testing.assert_allclose(ends[0][0], ends[2][0], rtol=1e-5)
    for first, last in zip(ends[0][1], ends[2][1], strict=True):
        np.testing.assert_allclose(first, last, rtol=1e-4, atol=1e-6)


@TASKS
def test_frozen_weights_stay_in_the_next_fit(make):
    task, data, arguments = make()
    task.compile(learning_rate=0.01)
    task.fit(data, **arguments)
    frozen = next(layer for layer in task.model._flatten_layers() if "Embedding" in layer.name)
    frozen.trainable = False
    before = [weight.copy() for weight in frozen.get_weights()]
    rest = task.model.get_weights()
    task.fit(data, **arguments)
    assert all(map(np.array_equal, before, frozen.get_weights()))
    assert not all(map(np.array_equal, rest, task.model.get_weights()))


@TASKS
def test_validation_data_are_tokenised_once(make, monkeypatch):
    task, data, arguments = make()
    calls = []
    kind = type(task.tokenizer)
    for name in ("encode_batch", "encode_ids"):
        method = getattr(kind, name)

        def counted(self, texts, method=method):
            calls.append(len(list(texts)))
            return method(self, texts)

        monkeypatch.setattr(kind, name, counted)
    task.compile(learning_rate=0.01)
    counts = []
    for epochs in (1, 3):
        calls.clear()
        task.fit(data, data, epochs=epochs, **arguments)
        counts.append(len(calls))
    assert counts[0] == counts[1] > 0


def test_warm_up_runs_every_shape_of_predict():
    recognizer = make_recognizer()
    seen, predict = set(), recognizer.model.predict_on_batch

    def watched(batch):
        seen.add(batch["token_ids"].shape)
        return predict(batch)

    recognizer.model.predict_on_batch = watched
    assert recognizer.warm_up(batch_size=8) == len(seen) == 4 * 2  # 1, 2, 4, 8 rows; 16 and 32
    warm = set(seen)
    texts = [record["text"] for record in RECORDS]
    for some in (texts[:1], texts[:3], texts, [texts[0] * 5] * 9):
        recognizer.predict(some, batch_size=8)
    assert seen == warm
    seen.clear()
    assert recognizer.warm_up(lengths=[5, 9], batch_size=1) == 1
    assert seen == {(1, 16)}
    with pytest.raises(ValueError, match="Received: lengths="):
        recognizer.warm_up(lengths=[33])


def test_warm_up_of_an_encoder_that_compiles_each_shape():
    encoder = make_encoder()
    encoder.model.compile(jit_compile=True)
    seen, predict = set(), encoder.model.predict_on_batch

    def watched(batch):
        seen.add(batch["token_ids"].shape)
        return predict(batch)

    encoder.model.predict_on_batch = watched
    assert encoder.warm_up(batch_size=4) == 2
    warm = set(seen)
    encoder.encode(["red car", "grey sky and a very old tree", "a"] * 3, batch_size=4)
    assert seen == warm == {(4, 16), (4, 32)}


class Watch(keras.callbacks.Callback):
    """Notes the rate of each step; ends training before an epoch, if one is given."""

    def __init__(self, last=None):
        super().__init__()
        self.last, self.rates = last, []

    def on_train_batch_begin(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch + 1 == self.last


@TASKS
def test_a_fit_from_an_initial_epoch_goes_on_as_if_it_had_not_ended(make):
    task, data, arguments = make()
    start = task.model.get_weights()
    task.compile(learning_rate=0.01)
    watch = Watch()
    whole = task.fit(data, epochs=4, callbacks=watch, **arguments).history["loss"]
    expected = task.model.get_weights()
    task.model.set_weights(start)
    parts = Watch(last=2), Watch()
    task.fit(data, epochs=4, callbacks=parts[0], **arguments)
    history = task.fit(data, epochs=4, initial_epoch=2, callbacks=parts[1], **arguments)
    assert history.epoch == [2, 3]
    np.testing.assert_allclose(history.history["loss"], whole[2:], rtol=1e-4)
    np.testing.assert_allclose(parts[0].rates + parts[1].rates, watch.rates, rtol=1e-6)
    for found, wanted in zip(task.model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)
    # An optimizer without a past has the rates of those epochs, too, and the next fit begins anew.
    task.compile(learning_rate=0.01)
    fresh, anew = Watch(), Watch()
    task.fit(data, epochs=4, initial_epoch=2, callbacks=fresh, **arguments)
    np.testing.assert_allclose(fresh.rates, parts[1].rates, rtol=1e-6)
    task.fit(data, epochs=4, callbacks=anew, **arguments)
    np.testing.assert_allclose(anew.rates, watch.rates, rtol=1e-6)
