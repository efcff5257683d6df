"""All wrappers together: their order, and one stack of all of them."""

import itertools

import keras
import numpy as np
import pytest

from keras_ext.optimizers import (
    GradientAccumulation,
    GuardedLossScale,
    LayerAdaptation,
    Lookahead,
    NonFiniteGuard,
    ParameterwiseLR,
    Tiger,
)
from tests.optimizers.steps import stepper, values

RULES = [["kernel", 0.5]]
ORDER = {
    "GuardedLossScale": GuardedLossScale,
    "NonFiniteGuard": NonFiniteGuard,
    "GradientAccumulation": lambda inner: GradientAccumulation(inner, steps=2),
    "Lookahead": lambda inner: Lookahead(inner, sync_period=2),
    "LayerAdaptation": LayerAdaptation,
    "ParameterwiseLR": lambda inner: ParameterwiseLR(inner, RULES),
}
PAIRS = list(itertools.product(ORDER, repeat=2))


def stack(base):
    for wrap in reversed(ORDER.values()):
        base = wrap(base)
    return base


def adamw(**arguments):
    return keras.optimizers.AdamW(2.0**-6, use_ema=True, ema_momentum=0.5, **arguments)


def small_model(optimizer=None, units=2, **compile_arguments):
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(units, kernel_initializer="random_normal")
    model = keras.Sequential([keras.Input((3,)), dense])
    if optimizer is not None:
        model.compile(optimizer, "mse", **compile_arguments)
    return model


def batches(count=12):
    rng = np.random.default_rng(0)
    return rng.normal(size=(4 * count, 3)), rng.normal(size=(4 * count, 2))


def state(model):
    return values([*model.weights, *model.optimizer.variables])


@pytest.mark.parametrize(("outer", "inner"), PAIRS)
def test_the_order_of_the_design_is_enforced(outer, inner):
    within = ORDER[inner](keras.optimizers.SGD())
    names = list(ORDER)
    if names.index(outer) < names.index(inner):
        assert ORDER[outer](within).inner_optimizer is within
    else:
        with pytest.raises(ValueError, match=f"{outer} cannot stand around {inner}.*this order"):
            ORDER[outer](within)


@pytest.mark.parametrize("outer", ORDER)
def test_the_loss_scaling_of_keras_cannot_stand_inside(outer):
    scaling = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    with pytest.raises(ValueError, match=f"{outer} cannot stand around LossScaleOptimizer"):
        ORDER[outer](scaling)


@pytest.mark.parametrize("outer", ORDER)
@pytest.mark.parametrize(
    ("argument", "value", "instead"),
    [
        ("gradient_accumulation_steps", 2, "GradientAccumulation"),
        ("loss_scale_factor", 8.0, "GuardedLossScale"),
        ("learning_rate", float("nan"), "a finite learning rate"),
        ("learning_rate", float("inf"), "a finite learning rate"),
    ],
)
def test_what_a_wrapper_takes_over_is_refused_inside(outer, argument, value, instead):
    with pytest.raises(ValueError, match=f"{instead}.*{argument}"):
        ORDER[outer](keras.optimizers.SGD(**{argument: value}))
    others = keras.optimizers.OptimizerMap(keras.optimizers.SGD(**{argument: value}))
    if argument != "loss_scale_factor":  # a MultiOptimizer takes it away
        with pytest.raises(ValueError, match=f"{instead}.*{argument}"):
            ORDER[outer](keras.optimizers.MultiOptimizer(others))


@pytest.mark.parametrize("rate", [float("nan"), float("inf")])
def test_a_rate_that_is_not_finite_cannot_be_set(rate):
    optimizer = stack(keras.optimizers.SGD(0.5))
    with pytest.raises(ValueError, match="Expected a finite learning rate"):
        optimizer.learning_rate = rate
    assert float(keras.ops.convert_to_numpy(optimizer.learning_rate)) == 0.5
    with pytest.raises(ValueError, match="Expected a finite learning rate"):
        Tiger(rate)


def test_every_wrapper_of_the_stack_does_its_part():
    """Gradients of 1 for a scalar in a matrix, followed by hand through all wrappers."""
    kernel = keras.Variable([[2.0]], name="kernel")
    optimizer = stack(keras.optimizers.SGD(0.25))
    scale = optimizer.initial_scale
    step = stepper(optimizer, [kernel])
    seen = []
    for gradient in (1.0, 3.0, np.nan, -5.0, 1.0):
        step([np.array([[gradient * scale]], "float32")])
        seen.append(float(keras.ops.convert_to_numpy(kernel)[0, 0]))
        scale = float(keras.ops.convert_to_numpy(optimizer.dynamic_scale))
    # The first window: the step is 0.25 * 0.5 of the weight, down.
    # The second one: as much of 1.75, up, and then half of the way from 2.0.
    assert seen == [2.0, 1.75, 1.75, 1.75, 2.0 + 0.5 * (1.75 * 1.125 - 2.0)]
    assert scale == 2.0**14
    assert int(keras.ops.convert_to_numpy(optimizer.skipped_steps)) == 1
    assert int(keras.ops.convert_to_numpy(optimizer.iterations)) == 2


def test_the_stack_obeys_a_rate_that_falls_on_a_plateau():
    model = small_model(stack(keras.optimizers.SGD(0.5)))
    plateau = keras.callbacks.ReduceLROnPlateau(
        monitor="loss", factor=0.25, patience=1, min_delta=9.0
    )
    x, y = batches(4)
    log = model.fit(x, y, epochs=3, batch_size=4, verbose=0, callbacks=[plateau])
    assert log.history["learning_rate"] == [0.5, 0.5, 0.125]


# JAX always compiles.
@pytest.mark.slow
@pytest.mark.parametrize("xla", [True] if keras.backend.backend() == "jax" else [False, True])
def test_the_stack_is_loaded_and_goes_on_in_the_middle_of_a_window(tmp_path, xla):
    x, y = batches()
    model = small_model(stack(keras.optimizers.AdamW(2.0**-6)), jit_compile=xla)

    def fit(model, first, last):
        steps = slice(4 * first, 4 * last)
        model.fit(x[steps], y[steps], batch_size=4, shuffle=False, verbose=0)

    fit(model, 0, 5)
    model.save(tmp_path / "model.keras")
    fit(model, 5, 12)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    fit(loaded, 5, 12)
    for left, right in zip(state(loaded), state(model), strict=True):
        np.testing.assert_array_equal(left, right)
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 6


@pytest.mark.slow
def test_a_model_that_was_saved_before_training_loads_and_trains(tmp_path):
    x, y = batches()
    model = small_model(stack(keras.optimizers.SGD(0.25)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    for left, right in zip(state(loaded), state(model), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [*ORDER.values(), stack], ids=[*ORDER, "stack"])
@pytest.mark.parametrize("base", [keras.optimizers.Adam, keras.optimizers.SGD])
def test_slots_of_another_optimizer_or_of_a_model_of_other_shape_are_refused(wrap, base):
    trained, same, other = (wrap(keras.optimizers.Adam(0.25)) for _ in range(3))
    for optimizer, units in ((trained, 2), (same, 2), (other, 3)):
        optimizer.build(small_model(units=units).trainable_variables)
    load(same, trained)
    if base is keras.optimizers.SGD:
        other = wrap(base(0.25))
        other.build(small_model().trainable_variables)
    with pytest.raises(ValueError, match="shape"):
        load(other, trained)


def load(optimizer, saved):
    """Loads the state of an optimizer as Keras does: that of a wrapper, then what is inside."""
    while saved is not None:
        store = {}
        saved.save_own_variables(store)
        optimizer.load_own_variables(store)
        saved, optimizer = (getattr(x, "inner_optimizer", None) for x in (saved, optimizer))


@pytest.mark.slow
def test_averages_are_swapped_in_by_the_callback_of_keras():
    x, y = batches()

    def at_epoch_end(*callbacks):
        model, seen = small_model(stack(adamw())), []

        def note(epoch, logs):
            averages = model.optimizer.inner_optimizer._model_variables_moving_average
            seen.append([values(model.trainable_variables), values(averages)])

        watch = keras.callbacks.LambdaCallback(on_epoch_end=note)
        model.fit(x, y, 4, shuffle=False, verbose=0, callbacks=[*callbacks, watch])
        return seen[0]

    weights, averages = at_epoch_end()
    swapped, _ = at_epoch_end(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    assert not np.array_equal(weights[0], averages[0])
    for left, right in zip(swapped, averages, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="gradients of JAX are dense")
@pytest.mark.parametrize("scaler", [keras.optimizers.LossScaleOptimizer, GuardedLossScale])
def test_an_infinite_gradient_of_a_word_that_occurs_twice_passes_only_in_keras(scaler):
    """Keras looks at one occurrence of a row: any text in which a word is repeated."""
    table = keras.Variable(np.ones((3, 2), "float32"), name="embeddings")
    gradient = np.array([[np.inf, np.inf], [1.0, 1.0]], "float32")
    stepper(scaler(keras.optimizers.Adam(0.1)), [table])([(gradient, np.array([1, 1]))])
    assert np.isfinite(values([table])[0]).all() == (scaler is GuardedLossScale)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_strategy_of_one_replica_changes_nothing(two_replicas, jit_compile):
    (weights, counts), (expected, expected_counts) = two_replicas(
        "wrapper_cases.one_replica", jit_compile=jit_compile
    )
    assert counts == expected_counts == [1, 4]
    for found, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(found, other, rtol=1e-6)


@pytest.mark.parametrize("name", ORDER)
def test_to_build_twice_changes_nothing(name):
    variables = [keras.Variable(np.ones((2, 2)), name="kernel")]
    optimizer = ORDER[name](keras.optimizers.Adam())
    optimizer.build(variables)
    before = [id(variable) for variable in optimizer.variables]
    optimizer.build(variables)
    assert [id(variable) for variable in optimizer.variables] == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Skipping variable loading", "ignore:__array__ impl")
@pytest.mark.parametrize("name", ORDER)
def test_weights_are_loaded_where_the_state_of_the_optimizer_cannot_be(name, tmp_path):
    trained, new = (small_model(ORDER[name](adamw())) for _ in range(2))
    path = str(tmp_path / "trained.weights.h5")
    x, y = batches()
    trained.fit(x, y, verbose=0)
    trained.save_weights(path)
    with pytest.warns(UserWarning, match="state of the optimizer is not loaded"):
        new.load_weights(path)  # its optimizer is not built yet
    np.testing.assert_array_equal(new.get_weights()[0], trained.get_weights()[0])
    small_model().save_weights(path)
    with pytest.warns(UserWarning, match="state of the optimizer is not loaded"):
        trained.load_weights(path)  # without an optimizer
