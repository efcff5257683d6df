import itertools

import keras
import numpy as np
import pytest
from accumulation_matrix import make_optimizer
from keras import ops
from micro_batches import micro_batches, steps_of, train

from keras_ext.callbacks import OptimizerMonitor
from keras_ext.optimizers import (
    GradientAccumulation,
    GuardedLossScale,
    LayerAdaptation,
    Lookahead,
    NonFiniteGuard,
    ParameterwiseLR,
    Tiger,
)
from tests.optimizers.accumulation_cases import BATCH, data, small_model, trained

serialize = keras.saving.serialize_keras_object
SGD, AdamW = keras.optimizers.SGD, keras.optimizers.AdamW


def weight(value=(1.0, -2.0), name="kernel"):
    return keras.Variable(np.array(value, "float32"), name=name)


def apply(optimizer, *gradients):
    optimizer.apply([g if g is None else ops.convert_to_tensor(g, "float32") for g in gradients])


def values(*variables):
    return [ops.convert_to_numpy(variable) for variable in variables]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_mean_of_each_window_is_applied(steps):
    variable, rng = weight(), np.random.default_rng(0)
    optimizer = GradientAccumulation(SGD(0.5), steps)
    optimizer.build([variable])
    expected, window = np.array([1.0, -2.0]), []
    for step in range(1, 8):
        window.append(rng.normal(size=2))
        apply(optimizer, window[-1])
        if step % steps == 0:
            expected, window = expected - 0.5 * sum(window) / steps, []
        np.testing.assert_allclose(variable, expected, rtol=1e-6)
        assert int(optimizer.pending_steps) == len(window)
        assert int(optimizer.iterations) == step // steps


def test_a_flush_applies_the_mean_of_what_is_there():
    variable = weight((0.0, 0.0))
    optimizer = GradientAccumulation(SGD(1.0), 4)
    optimizer.flush()  # nothing is there before the first step
    optimizer.build([variable])
    for gradient in (1.0, 2.0, 6.0):
        apply(optimizer, [gradient, 0.0])
    optimizer.flush()
    np.testing.assert_array_equal(variable, [-3.0, 0.0])
    optimizer.flush()  # nothing is there now
    assert int(optimizer.iterations) == 1
    for _ in range(4):  # a whole new window
        np.testing.assert_array_equal(variable, [-3.0, 0.0])
        apply(optimizer, [1.0, 1.0])
    np.testing.assert_array_equal(variable, [-4.0, -1.0])
    assert int(optimizer.iterations) == 2


def test_what_has_no_gradient_is_not_touched():
    """Weight decay would change it, at the end of a window and at a flush, also after loading."""
    trained, other = weight(), weight(name="other")

    def build():
        optimizer = GradientAccumulation(AdamW(0.5, weight_decay=0.5), 2)
        optimizer.build([trained, other])
        return optimizer

    optimizer = build()
    for _ in range(3):
        with pytest.warns(UserWarning, match="Gradients do not exist.*other"):
            apply(optimizer, [1.0, 1.0], None)
    before, state = values(trained)[0], {}
    assert not np.array_equal(before, [1.0, -2.0])
    resumed = build()
    optimizer.save_own_variables(state)
    resumed.load_own_variables(state)
    resumed.flush()
    assert (values(trained)[0] != before).all()
    np.testing.assert_array_equal(other, [1.0, -2.0])


def test_a_saved_window_longer_than_those_now_ends_with_its_true_count():
    variable, state = weight((0.0, 0.0)), {}
    optimizers = [GradientAccumulation(SGD(1.0), steps) for steps in (8, 2)]
    for optimizer in optimizers:
        optimizer.build([variable])
    for gradient in (1.0, 2.0, 3.0):
        apply(optimizers[0], [gradient, 1.0])
    optimizers[0].save_own_variables(state)
    optimizers[1].load_own_variables(state)
    apply(optimizers[1], [6.0, 1.0])
    np.testing.assert_array_equal(variable, [-3.0, -1.0])
    assert int(optimizers[1].pending_steps) == 0


def test_a_clip_is_of_the_mean():
    variable = weight((0.0, 0.0))
    optimizer = GradientAccumulation(SGD(1.0, global_clipnorm=1.0), 2)
    optimizer.build([variable])
    apply(optimizer, [9.0, 0.0])
    apply(optimizer, [-9.0, 0.5])  # the mean is [0, 0.25]: nothing to clip
    np.testing.assert_array_equal(variable, [0.0, -0.25])
    apply(optimizer, [6.0, 8.0])
    apply(optimizer, [0.0, 0.0])  # the mean is [3, 4], clipped [0.6, 0.8]
    np.testing.assert_allclose(variable, [-0.6, -1.05], rtol=1e-6)


def test_repeated_rows_are_added_up_before_they_are_squared():
    """Keras' Adam squares the gradient of each of the times that a batch has a row."""
    if keras.backend.backend() == "jax":
        pytest.skip("sparse gradients are TensorFlow's")
    import tensorflow as tf

    gradient = tf.IndexedSlices([[1.0], [2.0]], [0, 0], [2, 1])
    adams = [lambda: keras.optimizers.Adam(0.5), lambda: GradientAccumulation(adams[0](), 1)]
    moved = []
    for make, g in itertools.product(adams, (gradient, tf.convert_to_tensor(gradient))):
        variable, optimizer = weight([[0.0], [0.0]]), make()
        optimizer.apply([g], [variable])
        moved.append(float(values(variable)[0][0, 0]))
    assert moved[1] == moved[2] == moved[3] != moved[0]


def stack(steps):
    """All that may stand inside, around an Adam."""
    inner = ParameterwiseLR(AdamW(0.5, weight_decay=0.5), [["kernel", 0.5]])
    return GradientAccumulation(Lookahead(LayerAdaptation(inner), sync_period=2), steps)


def test_all_that_stands_inside_sees_real_updates():
    micro, big = weight([[1.0], [-2.0]]), weight([[1.0], [-2.0]])
    optimizer, reference = stack(4), stack(1)
    optimizer.build([micro])
    reference.build([big])
    for gradients in np.random.default_rng(0).integers(-8, 9, (3, 4, 2, 1)) / 16:
        for gradient in gradients:
            apply(optimizer, gradient)
        apply(reference, gradients.mean(0))
        np.testing.assert_array_equal(*values(micro, big))


def test_all_that_stands_inside_works_on_two_replicas(two_replicas):
    arguments = {"optimizer": serialize(stack(2)), "count": 5, "flush": True}
    found = two_replicas("accumulation_cases.steps", **arguments)
    variable, optimizer = weight((0.0, 0.0)), stack(2)
    optimizer.build([variable])
    for step, on_replicas in enumerate(found):
        if step < 5:
            apply(optimizer, [3.0, 3.0])
        else:
            optimizer.flush()
        assert on_replicas[0] == on_replicas[1]
        np.testing.assert_allclose(on_replicas[0], *values(variable), rtol=1e-6)


def test_a_skipped_micro_batch_is_not_counted():
    variable = weight((0.0, 0.0))
    optimizer = NonFiniteGuard(GradientAccumulation(SGD(1.0), 2))
    optimizer.build([variable])
    for gradient in (1.0, np.nan, np.inf):
        apply(optimizer, [gradient, 1.0])
    np.testing.assert_array_equal(variable, [0.0, 0.0])
    apply(optimizer, [3.0, 1.0])
    np.testing.assert_array_equal(variable, [-2.0, -1.0])


def averaged_by(optimizer):
    """The average after 3 windows of the gradients 1 and 3: of the weights -2, -4 and -6."""
    variable = weight((0.0, 0.0))
    optimizer.build([variable])
    for gradient in (1.0, 3.0) * 3:
        apply(optimizer, [gradient, gradient])
    np.testing.assert_array_equal(variable, [-6.0, -6.0])
    return values(*optimizer._model_variables_moving_average)[0][0]


def test_averages_of_weights_are_taken_once_an_update():
    """Keras takes one in each micro-step, and so counts what did not change as well."""
    arguments = {"learning_rate": 1.0, "use_ema": True, "ema_momentum": 0.5}
    once = 0.5 * (0.5 * -2 + 0.5 * -4) + 0.5 * -6
    assert averaged_by(GradientAccumulation(SGD(**arguments), 2)) == once
    assert averaged_by(SGD(**arguments, gradient_accumulation_steps=2)) != once


def accumulating(name):
    """An optimizer that makes an update of 2 micro-batches, with averages of the weights."""
    arguments = {"learning_rate": 0.1, "weight_decay": 0.1, "use_ema": True, "ema_momentum": 0.5}
    if name == "Tiger":
        return Tiger(**arguments, gradient_accumulation_steps=2)
    return GradientAccumulation(AdamW(**arguments), 2)


def assert_same_state(model, expected):
    """To the bit: weights, slots, what is pending."""
    for optimizer in (model.optimizer, expected.optimizer):
        assert len(optimizer.variables) > 6
    for variable, other in zip(
        model.variables + model.optimizer.variables,
        expected.variables + expected.optimizer.variables,
        strict=True,
    ):
        np.testing.assert_array_equal(*values(variable, other), err_msg=variable.path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AdamW", "Tiger"])
def test_eager_steps_and_compiled_ones_agree(name):
    if keras.backend.backend() == "jax":
        pytest.skip("the matrix compiles all its steps under JAX")
    eager, graph, xla = (
        train(
            lambda: make_optimizer(name, "average", 4), steps_of(micro_batches(), False), True, run
        )
        for run in ("eager", "graph", "XLA")
    )
    for variable, expected in eager.items():
        np.testing.assert_allclose(graph[variable], expected, rtol=1e-5)
        np.testing.assert_allclose(xla[variable], expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GradientAccumulation", "Tiger"])
def test_training_goes_on_in_the_middle_of_a_window(name, tmp_path):
    """3 micro-batches, saving, loading, 3 more, are 6 micro-batches, to the bit."""
    trained(small_model(accumulating(name)), 0, 3).save(tmp_path / "model.keras")
    model = trained(keras.saving.load_model(tmp_path / "model.keras"), 3, 6)
    assert int(model.optimizer.iterations) == 3
    assert_same_state(model, trained(small_model(accumulating(name)), 0, 6))


@pytest.mark.parametrize("name", ["GradientAccumulation", "Tiger"])
def test_what_two_replicas_began_one_device_ends(name, two_replicas, tmp_path):
    optimizer, path = serialize(accumulating(name)), str(tmp_path / "model.keras")
    two_replicas("accumulation_cases.save_in_a_window", optimizer=optimizer, path=path)
    model = trained(keras.saving.load_model(path), 3, 6)
    expected = trained(small_model(accumulating(name)), 0, 6)
    for variable, other in zip(model.variables, expected.variables, strict=True):
        np.testing.assert_allclose(*values(variable, other), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GradientAccumulation", "Tiger"])
def test_a_window_goes_on_in_the_next_epoch(name):
    x, y = data(0, 3)
    arguments = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    model, expected = small_model(accumulating(name)), small_model(accumulating(name))
    model.fit(x, y, epochs=2, **arguments)
    expected.fit(np.concatenate([x, x]), np.concatenate([y, y]), **arguments)
    assert int(model.optimizer.iterations) == 3
    assert_same_state(model, expected)


@pytest.mark.slow
def test_the_monitor_flushes_at_the_end_of_an_epoch():
    """In 2 epochs of 3 micro-batches: updates from batches of 2, 1, 2 and 1."""
    model = small_model(GradientAccumulation(AdamW(0.1), 2))
    monitor, (x, y) = OptimizerMonitor(), data(0, 3)
    model.fit(x, y, BATCH, epochs=2, shuffle=False, verbose=0, callbacks=[monitor])
    assert int(model.optimizer.iterations) == 4
    assert int(model.optimizer.pending_steps) == 0
    expected = small_model(GradientAccumulation(AdamW(0.1), 1))
    for part in (slice(0, 2 * BATCH), slice(2 * BATCH, 3 * BATCH)) * 2:
        expected.train_on_batch(x[part], y[part])
    for variable, other in zip(model.variables, expected.variables, strict=True):
        np.testing.assert_allclose(*values(variable, other), rtol=1e-5)


def test_two_replicas_add_their_gradients_up(two_replicas):
    """1 + 2 in each step: the mean of a window, and of a flushed one, is 3."""
    optimizer = serialize(GradientAccumulation(SGD(1.0), 2))
    found = two_replicas("accumulation_cases.steps", optimizer=optimizer, count=3, flush=True)
    assert found == [2 * [[w, w]] for w in (0.0, -3.0, -3.0, -6.0)]


def test_keras_cannot_accumulate_on_two_replicas(two_replicas):
    """What ours, above, is for."""
    optimizer = serialize(SGD(1.0, gradient_accumulation_steps=2))
    error = two_replicas("accumulation_cases.steps", optimizer=optimizer, count=2)
    assert "merge_call" in error


@pytest.mark.parametrize("inner", ["SGD", "Tiger"])
def test_xla_is_refused_on_two_replicas(inner, two_replicas):
    optimizer = GradientAccumulation(SGD(), 2) if inner == "SGD" else Tiger()
    arguments = {"optimizer": serialize(optimizer), "count": 1, "jit_compile": True}
    error = two_replicas("accumulation_cases.steps", **arguments)
    assert "XLA cannot compile" in error and "2 replicas" in error


@pytest.mark.parametrize("steps", [0, -1, 1.5, 2.0, True, "2", None])
def test_steps_that_are_no_count_are_refused(steps):
    with pytest.raises(ValueError, match=f"steps.*Received: steps={steps!r}"):
        GradientAccumulation(SGD(), steps)


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (lambda: GradientAccumulation(SGD(), 2), "cannot stand around GradientAccumulation"),
        (lambda: NonFiniteGuard(SGD()), "cannot stand around NonFiniteGuard"),
        (lambda: GuardedLossScale(SGD()), "cannot stand around GuardedLossScale"),
        (lambda: keras.optimizers.LossScaleOptimizer(SGD()), "cannot stand around LossScale"),
        (lambda: SGD(gradient_accumulation_steps=2), "gradient_accumulation_steps=2"),
    ],
)
def test_what_cannot_stand_inside_is_refused(inner, message):
    with pytest.raises(ValueError, match=message):
        GradientAccumulation(inner(), 2)


def test_steps_must_have_gradients_of_the_same_variables():
    """Else a window would hold gradients that its last step does not know of."""
    variables = [weight(name="a"), weight(name="b")]
    optimizer = GradientAccumulation(SGD(), 2)
    optimizer.build(variables)
    apply(optimizer, [1.0, 1.0], [1.0, 1.0])
    with (
        pytest.raises(ValueError, match=r"same variables.*\['b'\]"),
        pytest.warns(UserWarning, match="Gradients do not exist"),
    ):
        apply(optimizer, [1.0, 1.0], None)
    with pytest.raises(ValueError, match="No gradients provided"):
        apply(optimizer, None, None)


def test_float8_is_refused():
    layer = keras.layers.Dense(2)
    layer.build((None, 2))
    layer.quantize("float8")
    with pytest.raises(ValueError, match="float8"):
        GradientAccumulation(SGD(), 2).build(layer.trainable_variables)
