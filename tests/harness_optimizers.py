"""The properties that every optimizer has, besides those that every object has.

Each is a function of one row and raises AssertionError saying which object lacks what.
"""

import keras
import numpy as np
from harness_backend import compiled_step, rows_gradient
from harness_compare import relative_difference
from harness_kinds import ScheduleRow
from keras import ops

XLA_TOLERANCE = 1e-5


def check_compiled(row):
    """XLA gives the weights and slots of eager execution, and one trace serves all steps."""
    calls = []

    def eager(optimizer, variables):
        return lambda gradients: optimizer.apply(gradients, variables)

    def compiled(optimizer, variables):
        apply = optimizer.apply

        def noting(*arguments):  # a compiled function calls it when it is traced
            calls.append(None)
            return apply(*arguments)

        optimizer.apply = noting
        return compiled_step(optimizer, variables)

    def state_after(step_of, steps):
        variables, optimizer = row.model().trainable_variables, row.optimizer()
        optimizer.build(variables)
        step, traces = step_of(optimizer, variables), set()
        for i in range(steps):
            step(gradients_of(variables, i))
            traces.add(len(calls))
        assert len(traces) == 1, f"{row}: the second step with the same shapes traces again"
        return [*variables, *optimizer.variables]

    state, expected = state_after(compiled, 4), state_after(eager, 4)
    for variable, left, right in zip(state, values(state), values(expected), strict=True):
        difference = relative_difference(left, right)
        assert difference <= XLA_TOLERANCE, (
            f"{row}: {variable.path} under XLA is off by {difference:.1e}"
        )


def check_training(row, policy):
    """Training is finite, and obeys a learning rate that a callback sets: at 0 no weight moves."""
    model = row.compiled_model(policy)
    weights = model.trainable_variables
    start, rates, moved = values(weights), [], []

    def note(epoch, logs):
        rates.append(float(ops.convert_to_numpy(model.optimizer.learning_rate)))
        pairs = zip(values(weights), start, strict=True)
        moved.append([not np.array_equal(after, before) for after, before in pairs])

    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=note)]
    if not isinstance(row, ScheduleRow):
        schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.125 * epoch)
        callbacks.insert(0, schedule)
    x, y = (np.concatenate(row.inputs[name]) for name in ("train_x", "train_y"))
    size = len(x) // 4
    model.fit(x, y, size, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    for variable, value in zip(weights, values(weights), strict=True):
        assert np.isfinite(value).all(), f"{row}: {variable.path} is not finite under {policy}"
    assert all(moved[1]), f"{row}: not all weights move under {policy}: {moved[1]}"
    if not isinstance(row, ScheduleRow):
        assert rates == [0.0, 0.125], f"{row}: the rate is {rates}, set was 0.0, then 0.125"
        assert not any(moved[0]), f"{row}: weights move at a learning rate of 0 under {policy}"


def gradients_of(variables, step):
    """Gradients of all sizes, that of the table sparse, with a row that is there twice."""
    rng = np.random.default_rng(step)
    gradients = [rng.normal(size=v.shape).astype("float32") for v in variables]
    indices = np.array([0, 3, 3, step % 2])
    gradients[0] = rows_gradient(gradients[0][indices], indices, gradients[0].shape)
    return [gradients[0], *(ops.convert_to_tensor(g) for g in gradients[1:])]


def values(variables):
    """The values of variables as arrays; those that are no floats as float64."""
    arrays = [ops.convert_to_numpy(variable) for variable in variables]
    return [x if x.dtype.kind == "f" else x.astype("float64") for x in arrays]
