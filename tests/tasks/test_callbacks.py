"""Every callback of Keras, and ours, in the fits of both tasks."""

import json

import keras
import numpy as np
import pytest
from tasks.recognizers import make_recognizer, make_records
from tasks.sentences import SCORED, TRIPLETS, make_encoder

from keras_ext.callbacks import KeepFreedMemory
from keras_ext.layers import LearnableTemperature
from keras_ext.losses import InfoNCE

pytestmark = pytest.mark.slow

RECORDS = make_records()[:8]
EPOCHS = 2


@pytest.fixture(scope="module", params=["entities", "sentences"])
def compiled(request):
    """A task, what trains it with callbacks, and the measure of its best epoch."""
    entities = request.param == "entities"
    task = make_recognizer() if entities else make_encoder()
    data = RECORDS if entities else SCORED[:16]
    arguments = {"batch_size": 4 if entities else 8, "verbose": 0}

    def fit(callbacks, epochs=EPOCHS):
        return task.fit(data, data, epochs=epochs, callbacks=callbacks, **arguments)

    task.compile(learning_rate=0.01)
    return task, fit, "val_f1" if entities else "val_spearman", task.model.get_weights()


@pytest.fixture
def task(compiled):
    """The same from its first weights: what is compiled is used again, which saves traces."""
    task, fit, measure, weights = compiled
    task.model.set_weights(weights)
    return task, fit, measure


def test_model_checkpoint(task, tmp_path):
    trained, fit, measure = task
    path = str(tmp_path / "epoch-{epoch}.keras")
    fit([keras.callbacks.ModelCheckpoint(path, monitor=measure, mode="max")])
    model = keras.models.load_model(tmp_path / "epoch-2.keras")
    assert sum(w.size for w in model.get_weights()) == sum(
        w.size for w in trained.model.get_weights()
    )
    assert int(model.optimizer.iterations) == 4
    # It goes on where it stopped.
    part = getattr(model, "encoder", model)
    weights = dict(zip([v.path for v in part.weights], part.get_weights(), strict=True))
    assert all(np.isfinite(w).all() for w in weights.values())


def test_model_checkpoint_of_weights(task, tmp_path):
    trained, fit, measure = task
    path = tmp_path / "best.weights.h5"
    arguments = {"monitor": measure, "mode": "max", "save_best_only": True}
    fit([keras.callbacks.ModelCheckpoint(str(path), save_weights_only=True, **arguments)])
    assert path.stat().st_size > 4 * trained.model.count_params()


def test_backup_and_restore(task, tmp_path):
    trained, fit, _ = task

    def stop(epoch, logs):
        if epoch == 1:
            raise KeyboardInterrupt

    stopping = keras.callbacks.LambdaCallback(on_epoch_begin=stop)
    backup = {"backup_dir": str(tmp_path / "backup")}
    start = trained.model.get_weights()
    whole = fit([], epochs=3).history["loss"]
    trained.model.set_weights(start)
    with pytest.raises(KeyboardInterrupt):
        fit([keras.callbacks.BackupAndRestore(**backup), stopping], epochs=3)
    after_one = trained.model.get_weights()
    seen, first = [], []
    watch = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: first.extend(trained.model.get_weights()),
        on_epoch_begin=lambda epoch, logs: seen.append(epoch),
    )
    trained.model.set_weights([0 * weight for weight in after_one])
    history = fit([keras.callbacks.BackupAndRestore(**backup), watch], epochs=3)
    assert seen == [1, 2]
    # With the batches, the rates and the moments of a fit that was not interrupted.
    np.testing.assert_allclose(history.history["loss"], whole[1:], rtol=1e-4)
    assert all(np.array_equal(a, b) for a, b in zip(first, after_one, strict=True))


def test_csv_logger(task, tmp_path):
    _, fit, measure = task
    fit([keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))])
    header, *lines = (tmp_path / "log.csv").read_text().splitlines()
    assert {"epoch", "loss", measure} <= set(header.split(","))
    assert len(lines) == EPOCHS


def test_early_stopping(task):
    _, fit, measure = task
    arguments = {"monitor": measure, "mode": "max", "min_delta": 2.0, "patience": 1}
    history = fit([keras.callbacks.EarlyStopping(**arguments, restore_best_weights=True)], 5)
    assert len(history.epoch) == 2


@pytest.mark.parametrize("kind", ["scheduler", "plateau"])
def test_callbacks_that_set_the_learning_rate(task, kind):
    trained, fit, measure = task
    rates = []
    if kind == "scheduler":
        setter = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
        expected = [0.005, 0.0025, 0.00125]
    else:
        arguments = {"monitor": measure, "mode": "max", "min_delta": 2.0, "min_lr": 0.004}
        setter = keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=0, **arguments)
        expected = [0.01, 0.01, 0.005]
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: rates.append(float(logs["learning_rate"]))
    )
    fit([setter, watch], epochs=3)
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    # Anew in each fit, and by the schedule where nothing sets the rate.
    fit([setter, watch], epochs=1)
    assert rates[3] == pytest.approx(expected[0])
    assert "learning_rate" not in fit([], epochs=1).history


def test_swap_ema_weights(task):
    trained, fit, _ = task
    with pytest.raises(ValueError, match="use_ema"):
        fit([keras.callbacks.SwapEMAWeights(swap_on_epoch=True)])
    start = trained.model.get_weights()
    trained.compile(learning_rate=0.01, ema_momentum=0.5)
    fit([])
    alone = trained.model.get_weights()
    trained.model.set_weights(start)
    fit([keras.callbacks.SwapEMAWeights(swap_on_epoch=True)])
    np.testing.assert_allclose(trained.model.get_weights()[0], alone[0], rtol=1e-4, atol=1e-5)
    trained.compile(learning_rate=0.01)


def test_terminate_on_nan(task):
    trained, fit, _ = task
    broken = trained.model.get_weights()
    bad = [weight.copy() for weight in broken]
    bad[0][:] = np.nan
    trained.model.set_weights(bad)
    with pytest.raises(RuntimeError, match="Training stopped"):
        fit([keras.callbacks.TerminateOnNaN()])


def test_tensorboard(task, tmp_path):
    _, fit, _ = task
    fit([keras.callbacks.TensorBoard(str(tmp_path), histogram_freq=1, update_freq="batch")])
    files = list(tmp_path.rglob("events.out.tfevents*"))
    assert files
    assert sum(path.stat().st_size for path in files) > 1000


def test_the_others(task, monkeypatch):
    _, fit, measure = task
    sent = []
    import requests

    monkeypatch.setattr(requests, "post", lambda *_, **kwargs: sent.append(kwargs["json"]))
    history = keras.callbacks.History()
    fit(
        [
            history,
            keras.callbacks.ProgbarLogger(),
            keras.callbacks.RemoteMonitor("http://localhost", send_as_json=True),
            keras.callbacks.LambdaCallback(),
            KeepFreedMemory(),
        ]
    )
    assert len(history.history[measure]) == EPOCHS
    assert [set(json.loads(json.dumps(each))) >= {"loss", measure} for each in sent] == [True] * 2


def test_a_saved_model_of_views_with_a_head_is_the_same(tmp_path):
    encoder = make_encoder()
    loss = InfoNCE(temperature=1.0, score="dot")
    encoder.compile(loss=loss, head=LearnableTemperature(), learning_rate=0.01)
    path = tmp_path / "model.keras"
    encoder.fit(TRIPLETS, verbose=0, callbacks=[keras.callbacks.ModelCheckpoint(str(path))])
    model = keras.models.load_model(path)
    ids = np.arange(1, 9, dtype="int32").reshape(2, 4)
    view = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids > 0}
    trained = encoder._training.trained[None, False]
    np.testing.assert_array_equal(model((view, view)), trained((view, view)))
