import keras
import numpy as np
import pytest

from keras_ext.optimizers import GuardedLossScale, NonFiniteGuard
from tests.optimizers.guard_cases import trained
from tests.optimizers.steps import all_equal, stepper, values

KERAS = keras.optimizers.LossScaleOptimizer
ONE, NAN = np.ones(2, "float32"), np.full(2, np.nan, "float32")


def start(optimizer, jit_compile=False):
    """A weight of zeros, and a function that makes a step with its gradient, scaled."""
    variable = keras.Variable(np.zeros(2, "float32"), name="kernel")
    step = stepper(optimizer, [variable], jit_compile)

    def scaled(gradient):
        with np.errstate(invalid="ignore", over="ignore"):
            step([gradient * values([optimizer.dynamic_scale])[0]])
        return values([variable])[0]

    return scaled


def counters(optimizer):
    return int(optimizer.skipped_steps), int(optimizer.consecutive_skips)


@pytest.mark.parametrize("scaler", [KERAS, GuardedLossScale])
def test_bad_steps_without_end_let_the_next_good_one_write_nan_only_in_keras(scaler):
    optimizer = scaler(keras.optimizers.SGD(1.0))
    step = start(optimizer)
    for _ in range(200):
        step(NAN)
    weight, scale = step(ONE), float(optimizer.dynamic_scale)
    if scaler is KERAS:
        assert scale == 0.0 and np.isnan(weight).all()
    else:
        assert scale == 2.0**-14 and weight.tolist() == [-1.0, -1.0]
        assert counters(optimizer) == (200, 0)


@pytest.mark.parametrize("scaler", [KERAS, GuardedLossScale])
def test_good_steps_without_end_stop_training_for_ever_only_in_keras(scaler):
    optimizer = scaler(keras.optimizers.SGD(1.0), dynamic_growth_steps=1)
    step = start(optimizer)
    for _ in range(200):
        step(ONE)
    scale = float(optimizer.dynamic_scale)
    if scaler is KERAS:  # infinity halved is infinity
        assert scale == np.inf and int(optimizer.iterations) == 113
    else:
        assert scale == 2.0**24 and int(optimizer.iterations) == 200


def test_a_fixed_scale_trains_an_embedding_where_that_of_keras_cannot():
    def model(optimizer):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Embedding(5, 3), keras.layers.Flatten(), keras.layers.Dense(1)]
        model = keras.Sequential([keras.Input((2,), dtype="int32"), *layers])
        model.compile(optimizer, "mse")
        return model

    x, y = np.array([[0, 1], [4, 4]]), np.ones((2, 1))
    if keras.backend.backend() == "tensorflow":
        keras_scale = keras.optimizers.Adam(0.1, loss_scale_factor=64.0)
        with pytest.raises(TypeError, match="IndexedSlices"):
            model(keras_scale).fit(x, y, verbose=0)
    optimizer = GuardedLossScale(keras.optimizers.Adam(0.1), 64.0, dynamic=False)
    scaled, plain = model(optimizer), model(keras.optimizers.Adam(0.1))
    scaled.fit(x, y, verbose=0, epochs=3)
    plain.fit(x, y, verbose=0, epochs=3)
    for a, b in zip(scaled.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert float(optimizer.dynamic_scale) == 64.0


@pytest.mark.parametrize("jit_compile", [False, True])
def test_scale_counters_and_weights_follow_their_rules(jit_compile):
    optimizer = GuardedLossScale(
        keras.optimizers.SGD(1.0),
        initial_scale=1.0,
        dynamic_growth_steps=3,
        min_scale=0.25,
        max_scale=4.0,
    )
    step = start(optimizer, jit_compile)
    scale, good_in_a_row, bad_in_a_row, good, bad = 1.0, 0, 0, 0, 0
    rng = np.random.default_rng(0)
    for probability in np.repeat([0.2, 0.8, 0.0], 20):
        if rng.random() < probability:
            weight = step(rng.choice([np.nan, np.inf, -np.inf, 1e30]) * ONE)
            bad, bad_in_a_row, good_in_a_row = bad + 1, bad_in_a_row + 1, 0
            scale = max(scale / 2, 0.25)
        else:
            weight = step(ONE)
            good, bad_in_a_row, good_in_a_row = good + 1, 0, good_in_a_row + 1
            if good_in_a_row == 3:
                scale, good_in_a_row = min(2 * scale, 4.0), 0
        assert weight.tolist() == [-good, -good]
        assert float(optimizer.dynamic_scale) == scale
        assert counters(optimizer) == (bad, bad_in_a_row)
        assert int(optimizer.iterations) == good
    assert scale == 4.0


def test_the_scale_leaves_no_trace():
    found = []
    for scale in (2.0**-14, 1.0, 2.0**24):
        step = start(GuardedLossScale(keras.optimizers.Adam(0.1), scale, dynamic=False))
        rng = np.random.default_rng(0)
        found.append([step(rng.normal(size=2).astype("float32")) for _ in range(5)])
    assert all_equal(found[0], found[1]) and all_equal(found[0], found[2])


@pytest.mark.parametrize(("dynamic", "handed_on"), [(True, 3), (False, 5)])
def test_what_is_not_the_fault_of_the_scale_is_left_to_the_guard_inside(dynamic, handed_on):
    guard = NonFiniteGuard(keras.optimizers.SGD(1.0), "shrink", shrink_ratio=0.5)
    bound = {"min_scale": 1.0} if dynamic else {}
    optimizer = GuardedLossScale(guard, initial_scale=4.0, dynamic=dynamic, **bound)
    step = start(optimizer)
    step(ONE)
    for _ in range(5):
        weight = step(NAN)
    assert weight.tolist() == [-(0.5**handed_on)] * 2
    assert counters(guard) == (handed_on, handed_on)
    assert counters(optimizer) == (5, 5)


def test_a_stack_does_the_same_on_two_replicas(two_replicas):
    guard = NonFiniteGuard(keras.optimizers.Adam(0.1), "shrink", shrink_ratio=0.5)
    optimizer = GuardedLossScale(guard, initial_scale=2.0, min_scale=1.0)
    config = keras.saving.serialize_keras_object(optimizer)
    nan = float("nan")
    steps = [[0, None, None], [1, 1, nan], [2, 1, nan], [3, None, None], [4, 0, nan]]
    alone = trained(None, config, steps)
    both = two_replicas("guard_cases.trained", optimizer=config, steps=steps)
    for a, b in zip(alone["weights"], both["weights"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    assert alone["skipped_steps"] == both["skipped_steps"] == 3
    assert alone["dynamic_scale"] == both["dynamic_scale"] == 1.0


def test_xla_on_several_replicas_is_refused(two_replicas):
    config = keras.saving.serialize_keras_object(GuardedLossScale("sgd"))
    case = {"optimizer": config, "steps": [[0, None, None]], "jit_compile": True}
    with pytest.raises(AssertionError, match="ValueError: XLA cannot .* jit_compile=False"):
        two_replicas("guard_cases.trained", **case)


def half_model(optimizer, policy):
    keras.utils.set_random_seed(0)
    dense = [keras.layers.Dense(1, use_bias=False, dtype=policy) for _ in range(2)]
    model = keras.Sequential([keras.Input((2,)), *dense])
    model.compile(optimizer, lambda y_true, y_pred: 1e-10 * (y_pred - y_true) ** 2)
    return model


def test_small_gradients_survive_in_float16_by_the_scale():
    def change(optimizer, policy):
        model = half_model(optimizer, policy)
        before = model.get_weights()[0]
        model.fit(np.ones((2, 2)), 0.01 * np.ones((2, 1)), verbose=0)
        return model.get_weights()[0] - before

    expected = change(keras.optimizers.SGD(1e10), "float32")
    lost = change(keras.optimizers.SGD(1e10), "mixed_float16")
    kept = change(GuardedLossScale(keras.optimizers.SGD(1e10)), "mixed_float16")
    assert np.abs(kept - expected).max() < 0.01 * np.abs(expected).max()
    assert not lost.any()


def test_compile_puts_keras_scaler_around_all_but_this_one():
    def compiled(optimizer):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.dtype_policy = "mixed_float16"
        model.compile(optimizer, "mse")
        return model.optimizer

    assert type(compiled(keras.optimizers.SGD())) is KERAS
    assert type(compiled(NonFiniteGuard(keras.optimizers.SGD()))) is KERAS
    optimizer = GuardedLossScale(NonFiniteGuard(keras.optimizers.SGD()))
    assert compiled(optimizer) is optimizer


def test_averages_of_weights_are_found_through_the_stack():
    inner = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    model = half_model(GuardedLossScale(NonFiniteGuard(inner)), "float32")
    x, y = np.ones((4, 2)), np.ones((4, 1))
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    model.fit(x, y, batch_size=1, callbacks=[swap], verbose=0)
    assert all_equal(model.get_weights(), values(inner._model_variables_moving_average))


def test_weight_decay_exclusions_and_learning_rate_reach_the_optimizer_inside():
    inner = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer = GuardedLossScale(NonFiniteGuard(inner))
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    optimizer.learning_rate = 1.0
    assert float(inner.learning_rate) == 1.0
    variable = keras.Variable(np.ones(2, "float32"), name="kernel")
    stepper(optimizer, [variable])([np.zeros(2, "float32")])
    assert values([variable])[0].tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="learning_rate=nan"):
        optimizer.learning_rate = float("nan")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_scale": 0.0}, "min_scale=0.0"),
        ({"min_scale": 2.0, "initial_scale": 1.0}, "initial_scale=1.0"),
        ({"initial_scale": 2.0**25}, "max_scale=16777216.0"),
        ({"max_scale": float("inf")}, "max_scale=inf"),
        ({"initial_scale": float("nan")}, "initial_scale=nan"),
        ({"initial_scale": -1.0, "dynamic": False}, "initial_scale=-1.0"),
        ({"dynamic": False, "min_scale": 1.0}, "min_scale has an effect only with dynamic=True"),
        ({"dynamic": False, "max_scale": 2.0**20}, "max_scale has an effect only with"),
        ({"dynamic": False, "dynamic_growth_steps": 5}, "dynamic_growth_steps has an effect only"),
        ({"dynamic_growth_steps": 0}, "dynamic_growth_steps=0"),
        ({"dynamic_growth_steps": 2.5}, "dynamic_growth_steps=2.5"),
        ({"inner_optimizer": GuardedLossScale("sgd")}, "cannot stand around GuardedLossScale"),
        ({"inner_optimizer": keras.optimizers.SGD(loss_scale_factor=2.0)}, "loss_scale_factor"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GuardedLossScale(**{"inner_optimizer": "sgd", **arguments})
