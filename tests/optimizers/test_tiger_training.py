"""Tiger in training: its state, devices, precision, arguments. See test_tiger.py for the update."""

import keras
import numpy as np
import pytest

from keras_ext.optimizers import GuardedLossScale, Tiger
from tests.optimizers import tiger_reference
from tests.optimizers.steps import all_equal, stepper, values
from tests.optimizers.tiger_runs import (
    exact_gradients,
    last,
    random_gradients,
    run,
    spoil,
    start,
    variables_of,
)


@pytest.mark.parametrize("steps", [None, 1, 8])
def test_the_state_is_one_slot_for_each_weight(steps):
    weights = start()
    optimizer = Tiger(gradient_accumulation_steps=steps)
    optimizer.build(variables_of(weights))
    held = sum(value.size for value in values(optimizer.variables))
    # Beside them, iterations, learning rate, position, two counters, and a bit for each variable.
    assert held == sum(value.size for value in weights.values()) + 5 + len(weights)


def test_no_bad_step_stays_hidden():
    weights = start("kernel", "bias")
    micro_steps = spoil(random_gradients(weights, 6), [1, 2, 4], ["bias"])
    optimizer = Tiger(gradient_accumulation_steps=2)
    last(optimizer, weights, micro_steps)
    assert (int(optimizer.skipped_steps), int(optimizer.consecutive_skips)) == (3, 0)
    optimizer = Tiger(lambda: keras.ops.convert_to_tensor(float("nan")))
    last(optimizer, weights, random_gradients(weights, 6))
    assert (int(optimizer.skipped_steps), int(optimizer.consecutive_skips)) == (6, 6)


def test_eager_compiled_and_with_xla_it_does_the_same():
    weights = start("kernel", "embeddings")
    micro_steps = spoil(random_gradients(weights, 4), [2, 3], ["kernel"])
    kwargs = {"gradient_accumulation_steps": 2, "use_ema": True, "lazy_rows": True}
    optimizer, variables = Tiger(0.1, **kwargs), variables_of(weights)
    optimizer.build(variables)
    for gradients in micro_steps:
        optimizer.apply([keras.ops.convert_to_tensor(each) for each in gradients.values()])
    eager = values([*variables, *optimizer.variables])
    for xla in (False, True):
        optimizer = Tiger(0.1, **kwargs)
        found = [*last(optimizer, weights, micro_steps, xla), *values(optimizer.variables)]
        for one, other in zip(found, eager, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "bad"),
    [
        ({"gradient_accumulation_steps": 3, "use_ema": True, "lazy_rows": True}, [[1, 1], [4, 0]]),
        ({"nonfinite_scope": "global", "clipnorm": 1.0}, [[2, 1]]),
        ({"nonfinite": "reference", "gradient_accumulation_steps": 2}, [[3, 1], [4, 0]]),
    ],
)
def test_two_replicas_do_what_one_device_does(two_replicas, arguments, bad):
    first, second, single = two_replicas("tiger_cases.both_ways", arguments=arguments, bad=bad)
    assert first == second
    for one, other in zip(first, single, strict=True):
        # The norm of a sparse gradient, if it is clipped, is a sum in another order.
        np.testing.assert_allclose(one, other, rtol=1e-6 if "clipnorm" in arguments else 0)


def test_several_replicas_are_not_compiled_by_xla(two_replicas):
    tiger = keras.saving.serialize_keras_object(Tiger(gradient_accumulation_steps=2))
    case = {"optimizer": tiger, "count": 1, "jit_compile": True}
    assert "jit_compile=False" in two_replicas("accumulation_cases.steps", **case)


def test_a_window_goes_on_in_the_next_epoch():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimizer = Tiger(0.1, gradient_accumulation_steps=2)
    model.compile(optimizer, "mse")
    x, y = np.ones((3, 2)), np.ones((3, 1))
    pending = []
    for _ in range(2):
        model.fit(x, y, batch_size=1, verbose=0)
        pending.append((int(optimizer.iterations), int(optimizer.position)))
    assert pending == [(1, 1), (3, 0)]


def test_a_micro_batch_that_a_loss_scale_skips_is_not_of_the_window():
    weights = start("kernel", "bias")
    good = exact_gradients(weights, 2)
    bad = spoil(exact_gradients(weights, 1), [0], weights)
    expected = last(Tiger(0.5, gradient_accumulation_steps=2), weights, good)
    tiger = Tiger(0.5, gradient_accumulation_steps=2)
    scaled = GuardedLossScale(tiger, initial_scale=4.0, dynamic=False)
    found = run(scaled, weights, [good[0], *bad, good[1]])
    assert all_equal(list(found[1].values()), list(weights.values()))
    assert all_equal(list(found[2].values()), expected)
    assert (int(tiger.iterations), int(tiger.position)) == (1, 0)


def test_what_has_no_gradient_stays_as_it_is():
    weights = start("kernel", "bias")
    variables = variables_of(weights)
    step = stepper(Tiger(0.5, weight_decay=0.5), variables)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        step([None, np.ones(2, "float32")])
    kernel, bias = values(variables)
    assert np.array_equal(kernel, weights["kernel"]) and np.all(bias != weights["bias"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_in_half_precision_warn_and_are_summed_up_in_float32(dtype):
    kernel = keras.Variable(np.ones((2, 2)), dtype=dtype, name="kernel")
    optimizer = Tiger(0.0625, weight_decay=0.0, gradient_accumulation_steps=3)
    with pytest.warns(UserWarning, match=r"half precision.*\['kernel'\]"):
        step = stepper(optimizer, [kernel])
    # In half precision, 1000 + 0.25 - 1000 is 0.
    for gradient in (1000.0, 0.25, -1000.0):
        step([keras.ops.full((2, 2), gradient, dtype)])
    assert (
        keras.ops.convert_to_numpy(keras.ops.cast(kernel, "float32")).tolist() == [[0.9375] * 2] * 2
    )


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no float64 by default")
@pytest.mark.parametrize("nonfinite", ["shrink", "reference"])
def test_weights_in_double_precision(nonfinite):
    weights = {name: value.astype("float64") for name, value in start().items()}
    variables = [keras.Variable(v, name=name, dtype="float64") for name, v in weights.items()]
    step = stepper(Tiger(0.125, gradient_accumulation_steps=2, nonfinite=nonfinite), variables)
    micro_steps = random_gradients(weights, 2)
    for gradients in micro_steps:
        step([gradient.astype("float64") for gradient in gradients.values()])
    (expected,) = tiger_reference.ours(weights, micro_steps, lambda _: 0.125, 2)
    for found, (name, value) in zip(values(variables), expected.items(), strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-6, err_msg=name)


def test_the_state_of_another_model_is_not_loaded():
    def saved(optimizer, *names):
        optimizer.build(variables_of(start(*names)))
        store = {}
        optimizer.save_own_variables(store)
        return store

    tiger = Tiger()
    tiger.build(variables_of(start("kernel")))
    for store in (
        saved(Tiger(), "bias"),
        saved(Tiger(), "kernel", "bias"),
        saved(keras.optimizers.Adam(), "kernel"),
    ):
        with pytest.raises(ValueError, match=r"of other shape.*\(3, 2\)"):
            tiger.load_own_variables(store)
    tiger.load_own_variables(saved(Tiger(0.5, gradient_accumulation_steps=2), "kernel"))
    assert float(tiger.learning_rate) == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": float("nan")}, "finite learning rate"),
        ({"learning_rate": float("inf")}, "finite learning rate"),
        ({"beta": 1.0}, r"beta in \[0, 1\)"),
        ({"beta": -0.1}, r"beta in \[0, 1\)"),
        ({"beta": float("nan")}, r"beta in \[0, 1\)"),
        ({"gradient_accumulation_steps": 0}, "int of at least 1"),
        ({"gradient_accumulation_steps": 2.0}, "int of at least 1"),
        ({"gradient_accumulation_steps": True}, "int of at least 1"),
        ({"nonfinite": "shrink", "shrink_ratio": 1.5}, r"shrink_ratio in \[0, 1\]"),
        ({"shrink_ratio": 0.5}, "shrink_ratio has an effect only with nonfinite='shrink'"),
        ({"nonfinite": "propagate", "shrink_ratio": 0.5}, "shrink_ratio has an effect only"),
        ({"nonfinite": "propagate", "nonfinite_scope": "global"}, "nonfinite_scope has an effect"),
        ({"scale_parameter": False, "min_rms": 0.5}, "min_rms has an effect only with scale_param"),
        ({"scale_parameter": False, "vector_lr_scale": 1.0}, "vector_lr_scale has an effect only"),
        ({"center_one_vars": "kernel"}, "center_one_vars has an effect only with"),
        ({"min_rms": -1.0}, "min_rms of at least 0"),
        ({"min_rms": float("nan")}, "min_rms of at least 0"),
        ({"weight_decay": -0.1}, "weight_decay of at least 0"),
        ({"vector_lr_scale": float("inf")}, "vector_lr_scale of at least 0"),
        ({"nonfinite": "ignore"}, "nonfinite to be one of"),
        ({"nonfinite_scope": "all"}, "nonfinite_scope to be one of"),
        ({"loss_scale_factor": 2.0}, "GuardedLossScale"),
        ({"rowwise": "nothing"}, "matches no variable.*rowwise='nothing'"),
        ({"vector_vars": "nothing"}, "matches no variable"),
        ({"nonfinite": "shrink", "center_one_vars": "nothing"}, "matches no variable"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tiger(**arguments).build(variables_of(start()))


def test_a_learning_rate_that_is_set_is_finite():
    optimizer = Tiger(0.5)
    with pytest.raises(ValueError, match="finite learning rate"):
        optimizer.learning_rate = float("nan")
    optimizer.learning_rate = 0.25
    assert float(optimizer.learning_rate) == 0.25
