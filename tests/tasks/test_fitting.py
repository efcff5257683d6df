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


@pytest.fixture(scope="module", params=[entities, sentences])
def compiled(request):
    task, data, arguments = request.param()
    task.compile(learning_rate=0.01)
    return task, data, arguments, task.model.get_weights()


@pytest.fixture
def case(compiled):
    """A task at its first weights, compiled; all tests use its traces."""
    task, data, arguments, weights = compiled
    task.model.set_weights(weights)
    return task, data, arguments


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="traces are TensorFlow's")
@TASKS
def test_the_first_step_is_traced_once_and_a_second_fit_not_at_all(make, monkeypatch):
    traces, step = [], keras.Model.train_step

    def counted(self, data):
        traces.append(self)
        return step(self, data)

    monkeypatch.setattr(keras.Model, "train_step", counted)
    task, data, arguments = make()
    task.compile(learning_rate=0.01)
    task.fit(data, **arguments)
    assert len(traces) == 1
    task.fit([*data, *data], epochs=2, **arguments)
    assert len(traces) == 1


@pytest.mark.slow
def test_a_default_optimizer_begins_anew_in_each_fit(case):
    """So a second fit from the same weights ends with the same weights, whatever came before."""
    task, data, arguments = case
    start = task.model.get_weights()
    ends = []
    for epochs in (2, 1, 2):
        task.model.set_weights(start)
        history = task.fit(data, epochs=epochs, **arguments)
        ends.append((history.history["loss"], task.model.get_weights()))
    np.testing.assert_allclose(ends[0][0], ends[2][0], rtol=1e-5)
    for first, last in zip(ends[0][1], ends[2][1], strict=True):
        np.testing.assert_allclose(first, last, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
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


@pytest.mark.slow
@TASKS
def test_the_scale_of_the_loss_scaling_of_keras_is_in_the_history(make):
    task, data, arguments = make()
    adam = keras.optimizers.Adam(0.01)
    task.compile(optimizer=keras.optimizers.LossScaleOptimizer(adam, initial_scale=8.0))
    assert task.fit(data, epochs=2, **arguments).history["loss_scale"] == [8.0, 8.0]


@pytest.mark.slow
@TASKS
def test_averaged_weights_are_kept_where_training_is_stopped(make):
    task, data, arguments = make()
    task.compile(learning_rate=0.05, ema_momentum=0.9)
    seen = []
    callbacks = [
        keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append(task.model.get_weights())
        ),
        keras.callbacks.EarlyStopping("loss", min_delta=1e3, patience=1),
    ]
    task.fit(data, epochs=5, callbacks=callbacks, **arguments)
    assert len(seen) == 2
    assert all(map(np.array_equal, seen[-1], task.model.get_weights()))


@pytest.mark.slow
@TASKS
def test_no_epochs_change_nothing_and_one_callback_needs_no_list(make):
    task, data, arguments = make()
    task.compile(learning_rate=0.01)
    before = task.model.get_weights()
    assert task.fit(data, epochs=0, **arguments).history == {}
    assert all(map(np.array_equal, before, task.model.get_weights()))
    setter = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    assert task.fit(data, epochs=1, callbacks=setter, **arguments).history[
        "learning_rate"
    ] == pytest.approx([0.005])


@pytest.mark.slow
@TASKS
def test_each_text_is_tokenised_once_and_validation_is_planned_once(make, monkeypatch):
    task, data, arguments = make()
    dev = make_records()[20:25] if make is entities else SCORED[14:30]
    seen, kind, epochs = [], type(task.tokenizer), 3
    for name in ("encode_batch", "encode_ids"):
        method = getattr(kind, name)

        def noted(self, texts, method=method):
            texts = list(texts)
            seen.extend(texts)
            return method(self, texts)

        monkeypatch.setattr(kind, name, noted)
    made, predict = [], task.model.predict_on_batch

    def watched(batch):
        made.append(np.array(batch["token_ids"]).tobytes())
        return predict(batch)

    task.model.predict_on_batch = watched
    task.compile(learning_rate=0.01)
    history = task.fit(data, dev, epochs=epochs, **arguments)
    assert len(history.epoch) == epochs
    texts = {each["text"] for each in [*data, *dev]} if make is entities else set()
    for each in [*data, *dev] if make is sentences else ():
        texts |= set(each[:2])
    assert sorted(seen) == sorted(texts)
    passed = len(made) // epochs
    assert len(made) == epochs * passed > 0 and made == epochs * made[:passed]


def watch(model):
    """A set that fills with what the model is called on: what is compiled is for these alone."""
    seen, predict = set(), model.predict_on_batch

    def watched(batch):
        seen.add(tuple((name, each.shape, each.dtype.name) for name, each in sorted(batch.items())))
        return predict(batch)

    model.predict_on_batch = watched
    return seen


def shapes(seen):
    return {dict((name, shape) for name, shape, _ in batch)["token_ids"] for batch in seen}


@pytest.mark.slow
def test_warm_up_runs_every_shape_of_predict():
    recognizer = make_recognizer()
    seen = watch(recognizer.model)
    assert recognizer.warm_up(batch_size=8) == len(seen) == 4 * 2  # 1, 2, 4, 8 rows; 16 and 32
    warm = set(seen)
    texts = [record["text"] for record in RECORDS]
    for some in (texts[:1], texts[:3], texts, [texts[0] * 5] * 9):
        recognizer.predict(some, batch_size=8)
    assert seen == warm
    seen.clear()
    assert recognizer.warm_up(lengths=[5, 9], batch_size=1) == 1
    assert shapes(seen) == {(1, 16)}
    with pytest.raises(ValueError, match="Received: lengths="):
        recognizer.warm_up(lengths=[33])
    for task in (recognizer, make_encoder()):
        with pytest.raises(ValueError, match="Received: batch_size=0"):
            task.warm_up(batch_size=0)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="traces are TensorFlow's")
@TASKS
def test_nothing_is_traced_after_warm_up(make):
    task, data, _ = make()
    texts = [each["text"] if make is entities else each[0] for each in data]
    task.warm_up(batch_size=4)
    traces = task.model.predict_function.experimental_get_tracing_count()
    for some in (texts[:1], texts[:3], texts, [texts[0] * 2]):
        task.predict(some, batch_size=4) if make is entities else task.encode(some, batch_size=4)
    assert task.model.predict_function.experimental_get_tracing_count() == traces > 0


def test_warm_up_of_an_encoder_that_compiles_each_shape():
    encoder = make_encoder()
    encoder.model.compile(jit_compile=True)
    seen = watch(encoder.model)
    assert encoder.warm_up(batch_size=4) == 2
    warm = set(seen)
    encoder.encode(["red car", "grey sky and a very old tree", "a"] * 3, batch_size=4)
    assert seen == warm
    assert shapes(seen) == {(4, 16), (4, 32)}


class Watch(keras.callbacks.Callback):
    """Notes the rate of each step; ends training before an epoch, if one is given."""

    def __init__(self, last=None):
        super().__init__()
        self.last, self.rates = last, []

    def on_train_batch_begin(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch + 1 == self.last


@pytest.mark.slow
def test_a_fit_from_an_initial_epoch_goes_on_as_if_it_had_not_ended(case):
    task, data, arguments = case
    start = task.model.get_weights()
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
