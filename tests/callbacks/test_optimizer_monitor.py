import keras
import numpy as np
import pytest

from keras_ext.callbacks import OptimizerMonitor
from keras_ext.optimizers import GradientAccumulation, GuardedLossScale, NonFiniteGuard, Tiger


class Record(keras.callbacks.Callback):
    """Keeps the logs of the batches, and the weights that are validated and left at the end."""

    def __init__(self):
        super().__init__()
        self.batches, self.validated, self.left = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(dict(logs))

    def on_test_begin(self, logs=None):
        self.validated.append(self.model.get_weights()[0].tolist())

    def on_epoch_end(self, epoch, logs=None):
        self.left.append(self.model.get_weights()[0].tolist())


def new_model(optimizer, normalize=False):
    norm = [keras.layers.BatchNormalization(name="norm")] if normalize else []
    model = keras.Sequential([keras.Input((2,)), *norm, keras.layers.Dense(1, name="dense")])
    model.compile(optimizer, "mse")
    return model


def data(batches, bad=(), name="y"):
    """Batches of one row, in some of which the inputs or targets are NaN."""
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(batches, 2)), "y": rng.normal(size=(batches, 1))}
    arrays[name][list(bad)] = np.nan
    return {**arrays, "batch_size": 1, "shuffle": False, "verbose": 0}


def sgd():
    return keras.optimizers.SGD(0.1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The loss scale has fallen")
def test_every_log_has_the_skipped_steps_and_the_scale(capsys):
    record = Record()
    model = new_model(GuardedLossScale(NonFiniteGuard(sgd()), initial_scale=8.0))
    arguments = {**data(5, bad=[1, 3]), "verbose": 1, "epochs": 2}
    history = model.fit(**arguments, callbacks=[OptimizerMonitor(), record]).history
    assert [logs["skipped_steps"] for logs in record.batches[:5]] == [0, 1, 1, 2, 2]
    assert [logs["loss_scale"] for logs in record.batches[:5]] == [8.0, 4.0, 4.0, 2.0, 2.0]
    assert history["skipped_steps"] == [2, 4]
    assert history["loss_scale"] == [2.0, 0.5]
    assert "skipped_steps: 4" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ impl")
def test_a_scale_below_1_is_told_once():
    model = new_model(GuardedLossScale(sgd(), initial_scale=2.0))
    with pytest.warns(UserWarning, match="fallen to 0.5, after 2 skipped steps") as warned:
        model.fit(**data(5, bad=[1, 2, 4]), callbacks=[OptimizerMonitor()])
    assert sum("loss scale" in str(warning.message) for warning in warned) == 1


def under_keras_scale(inner, scale=2.0**15):
    return new_model(keras.optimizers.LossScaleOptimizer(inner, initial_scale=scale))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ impl")
def test_a_scale_of_keras_without_a_floor_is_told_of():
    monitor, model = OptimizerMonitor(max_consecutive=8), under_keras_scale(Tiger(0.1), 4.0)
    with pytest.warns(UserWarning, match="scale") as warned:
        model.fit(**data(12, bad=range(1, 12)), callbacks=[monitor])
    messages = [str(warning.message) for warning in warned if "scale" in str(warning.message)]
    assert [message.partition(":")[0] for message in messages] == [
        "The loss scale has fallen to 0.5",
        "The weights have not moved for 8 batches",
    ]
    model.optimizer.dynamic_scale.assign(0.0)
    with pytest.warns(UserWarning, match="The loss scale is 0: nothing is learnt from here on"):
        model.fit(**data(2), callbacks=[monitor])


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 4])
def test_a_scale_that_skips_little_is_not_told_of(steps, recwarn):
    model = under_keras_scale(GradientAccumulation(sgd(), steps=steps), 0.5)
    monitor = OptimizerMonitor(max_consecutive=3)
    model.fit(**data(12, bad=[2, 3, 7, 8]), callbacks=[monitor])
    told = [str(each.message) for each in recwarn if "scale" in str(each.message)]
    assert [message.partition(":")[0] for message in told] == ["The loss scale has fallen to 0.25"]


@pytest.mark.slow
def test_training_stops_after_some_skipped_steps_in_a_row():
    record, model = Record(), new_model(NonFiniteGuard(sgd()))
    callbacks = [record, OptimizerMonitor(max_consecutive=3)]
    with pytest.raises(RuntimeError, match="3 steps in a row were skipped, 5 in all"):
        model.fit(**data(9, bad=[0, 1, 3, 4, 5, 6]), callbacks=callbacks)
    assert len(record.batches) == 6
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.slow
def test_the_error_tells_the_scale_and_none_comes_without_a_limit():
    def fit(limit):
        model = new_model(GuardedLossScale(sgd(), initial_scale=8.0))
        monitor = OptimizerMonitor(max_consecutive=limit)
        return model.fit(**data(3, bad=[0, 1, 2]), callbacks=[monitor]).history

    with pytest.raises(RuntimeError, match=r"The loss scale is 2\.0.*max_consecutive=2"):
        fit(2)
    assert fit(None)["skipped_steps"] == [3]


@pytest.mark.slow
def test_statistics_that_are_not_finite_are_named_at_once():
    record, model = Record(), new_model(NonFiniteGuard(sgd()), normalize=True)
    with pytest.raises(RuntimeError, match=r"2 such weights, .*norm/moving_mean"):
        model.fit(**data(9, bad=[4], name="x"), callbacks=[record, OptimizerMonitor()])
    assert len(record.batches) == 5
    assert np.isfinite(model.get_layer("dense").get_weights()[0]).all()


def test_weights_that_are_not_finite_are_named_at_the_end_of_an_epoch():
    with pytest.raises(RuntimeError, match=r"2 such weights, .*dense/kernel"):
        new_model(sgd()).fit(**data(3, bad=[2]), callbacks=[OptimizerMonitor()])


@pytest.mark.slow
def test_what_accumulates_is_applied_before_validation():
    record, optimizer = Record(), GradientAccumulation(sgd(), steps=4)
    model, monitor = new_model(NonFiniteGuard(optimizer)), OptimizerMonitor()
    arguments = data(6)
    validation = arguments["x"], arguments["y"]
    model.fit(**arguments, validation_data=validation, callbacks=[monitor, record])
    assert int(optimizer.iterations) == 2
    assert record.validated == record.left
    model.fit(**data(3))
    model.evaluate(*validation, callbacks=[monitor], verbose=0)
    assert int(optimizer.iterations) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__")
@pytest.mark.parametrize("several", [False, True])
def test_what_tiger_keeps_for_later_is_reported(several):
    tiger = Tiger(0.1, gradient_accumulation_steps=4)
    table = keras.optimizers.OptimizerMap(sgd(), {".*kernel": tiger})
    model = new_model(NonFiniteGuard(keras.optimizers.MultiOptimizer(table) if several else tiger))
    arguments = {**data(3), "epochs": 2, "callbacks": [OptimizerMonitor()]}
    with pytest.warns(UserWarning, match="2 micro-batches are left at the end"):
        history = model.fit(**arguments).history
    assert history["pending_steps"] == [3, 2]
    assert model.fit(**arguments).history["pending_steps"] == [1, 0]


def test_an_optimizer_that_skips_nothing_has_no_logs_of_it():
    history = new_model(sgd()).fit(**data(2), callbacks=[OptimizerMonitor()])
    assert set(history.history) == {"loss"}


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="max_consecutive=0"):
        OptimizerMonitor(max_consecutive=0)
