import keras
import numpy as np
import pytest
from keras.optimizers.schedules import ExponentialDecay

from keras_ext.optimizers import PiecewiseLinear, Tiger
from tests.optimizers import tiger_reference
from tests.optimizers.steps import all_equal, stepper, values
from tests.optimizers.tiger_runs import (
    exact_gradients,
    last,
    random_gradients,
    run,
    spoil,
    start,
)

PARITY = {
    "min_rms": 0.0,
    "vector_vars": "bias|beta|gamma",
    "center_one_vars": "gamma",
    "nonfinite": "reference",
    "count_micro_steps": True,
}


BETA = 0.6  # so short a memory that signs show an error in it


def schedule():
    """A learning rate in Keras, and the same in NumPy."""
    return ExponentialDecay(0.02, 1, 0.97), lambda step: 0.02 * 0.97**step


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("xla", [False, True])
def test_the_published_update(steps, xla):
    weights = start()
    micro_steps = random_gradients(weights, 24)
    # NaN at the start, in the middle and at the end of windows, in a whole one, in one variable.
    spoil(micro_steps, [4, 9, 15, 16, 17, 18, 19], weights)
    spoil(micro_steps, [20], ["kernel"])
    keras_rate, rate = schedule()
    optimizer = Tiger(keras_rate, BETA, gradient_accumulation_steps=steps, **PARITY)
    found = run(optimizer, weights, micro_steps, xla)
    expected = tiger_reference.published(weights, micro_steps, rate, steps, BETA)
    for one, other in zip(found, expected, strict=True):
        for name in weights:
            np.testing.assert_allclose(one[name], other[name], rtol=0, atol=2e-7)
    assert int(optimizer.iterations) == 24


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "kwargs", "xla"),
    [
        (1, {}, False),
        (4, {}, False),
        (4, {}, True),
        (4, {"nonfinite": "shrink"}, False),
        (1, {"nonfinite": "shrink", "nonfinite_scope": "global"}, True),
        (4, {"nonfinite_scope": "global"}, False),
        (4, {"lazy_rows": True}, True),
    ],
)
def test_the_update_of_windows_with_bad_micro_batches(steps, kwargs, xla):
    weights = {**start(), "scale": np.float32([0.5, 1.0]), "head": np.float32([0.5, -0.25])}
    weights["kernel"] *= 1e-4  # below min_rms
    micro_steps = random_gradients(weights, 24)
    for gradients in micro_steps[4:]:
        gradients["embeddings"][1] = 0.0
    spoil(micro_steps, [0, 9, 15, 16, 17, 18, 19], weights)
    spoil(micro_steps, [12, 13, 14, 21], ["gamma", "head"], np.inf)
    spoil(micro_steps, [22], ["embeddings"], -np.inf)
    keras_rate, rate = schedule()
    optimizer = Tiger(keras_rate, BETA, gradient_accumulation_steps=steps, **kwargs)
    found = run(optimizer, weights, micro_steps, xla)[steps - 1 :: steps]
    expected = list(tiger_reference.ours(weights, micro_steps, rate, steps, BETA, **kwargs))
    for one, other in zip(found, expected, strict=True):
        for name, value in other.items():
            # Relative to the largest entry: each of 24 updates rounds it by up to 6e-8.
            error = np.max(np.abs(one[name] - value)) / np.max(np.abs(value))
            assert error <= 5e-7, (name, error)
    assert int(optimizer.iterations) == len(expected)


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [None, 2])
@pytest.mark.parametrize("count_micro_steps", [False, True])
def test_micro_batches_equal_the_big_batch(overwrite, count_micro_steps):
    weights = start()
    micro_steps = exact_gradients(weights, 20)
    big = [
        {name: np.mean([g[name] for g in micro_steps[t : t + 4]], axis=0) for name in weights}
        for t in range(0, 20, 4)
    ]
    kwargs = {"use_ema": True, "ema_momentum": 0.75, "ema_overwrite_frequency": overwrite}
    rate = 0.25 if count_micro_steps else PiecewiseLinear([[0, 0.25], [4, 0.5]])
    one = Tiger(rate, **kwargs)
    four = Tiger(rate, gradient_accumulation_steps=4, count_micro_steps=count_micro_steps, **kwargs)
    expected = [weights, *run(one, weights, big)]
    for t, found in enumerate(run(four, weights, micro_steps), start=1):
        assert all_equal(list(found.values()), list(expected[t // 4].values()))
    averages = [values(each._model_variables_moving_average) for each in (one, four)]
    assert all_equal(*averages)
    assert int(four.iterations) == (20 if count_micro_steps else 5)


def test_the_average_is_that_of_the_updates():
    weights = start("kernel")
    optimizer = Tiger(0.5, gradient_accumulation_steps=2, use_ema=True, ema_momentum=0.75)
    first, *others = run(optimizer, weights, random_gradients(weights, 8))[1::2]
    average = first["kernel"]
    for each in others:
        average = 0.75 * average + 0.25 * each["kernel"]
    (kept,) = values(optimizer._model_variables_moving_average)
    np.testing.assert_allclose(kept, average, rtol=1e-6)


@pytest.mark.parametrize("lazy_rows", [False, True])
@pytest.mark.parametrize("steps", [1, 2])
def test_sparse_gradients_equal_dense_ones(lazy_rows, steps):
    weights = start("embeddings")
    # Row 2 twice in a gradient, row 0 in none, a bad one, rows of zeros.
    indices = np.array([[2, 2, 1], [3, 2, 1], [1, 1, 1], [2, 3, 3]])
    rows = np.random.default_rng(0).integers(-8, 9, (4, 3, 2)).astype("float32") / 8
    rows[2, 1, 0] = np.inf
    rows[3, 0] = 0.0
    dense = np.zeros((4, 4, 2), "float32")
    for total, index, gradient in zip(dense, indices, rows, strict=True):
        np.add.at(total, index, gradient)
    found = [
        run(
            Tiger(0.5, gradient_accumulation_steps=steps, lazy_rows=lazy_rows),
            weights,
            [{"embeddings": gradient} for gradient in gradients],
        )
        for gradients in (zip(rows, indices, strict=True), dense)
    ]
    for one, other in zip(*found, strict=True):
        assert all_equal(list(one.values()), list(other.values()))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("sparse", [False, True])
def test_lazy_rows_move_only_rows_that_received_a_gradient(sparse, steps):
    weights = start("embeddings")
    windows = [[1, 2], [1], []]  # rows that receive one, in the first micro-step

    def gradient(rows):
        if sparse:
            return np.ones((len(rows), 2), "float32"), np.array(rows, "int32")
        return np.isin(np.arange(4), rows)[:, None] * np.ones((4, 2), "float32")

    empty = [[]] * (steps - 1)
    micro_steps = [
        {"embeddings": gradient(rows)} for window in windows for rows in [window, *empty]
    ]
    for lazy_rows in (True, False):
        optimizer = Tiger(0.5, gradient_accumulation_steps=steps, lazy_rows=lazy_rows)
        before = weights["embeddings"]
        for found, window in zip(
            run(optimizer, weights, micro_steps)[steps - 1 :: steps], windows, strict=True
        ):
            now = found["embeddings"]
            moved = np.flatnonzero(np.any(now != before, axis=-1)).tolist()
            # Momentum and weight decay move the others as well.
            assert moved == (window if lazy_rows else [0, 1, 2, 3])
            before = now


def test_weight_decay_has_exceptions():
    weights = start()
    nothing = [{name: np.zeros_like(value) for name, value in weights.items()}]

    def unchanged(**excluded):
        optimizer = Tiger(0.5, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(**excluded)
        (found,) = run(optimizer, weights, nothing)
        return [name for name in weights if np.array_equal(found[name], weights[name])]

    assert unchanged() == ["gamma", "bias"]
    assert unchanged(var_names=["kernel"]) == ["kernel", "gamma", "bias"]
    assert unchanged(var_names=["^b", "embed"]) == ["embeddings", "gamma", "bias"]


def step_size(optimizer, weights, name):
    """How far a weight moves in an update without decay."""
    gradients = {name: np.ones_like(value) for name, value in weights.items()}
    (found,) = run(optimizer, weights, [gradients])
    return np.abs(found[name] - weights[name])


def test_patterns_choose_the_rule_of_a_variable():
    weights, kwargs = start("kernel", "bias"), {"learning_rate": 0.5, "weight_decay": 0.0}
    kernel = weights["kernel"]
    rms = np.sqrt(np.mean(kernel**2))
    of_rows = np.sqrt(np.mean(kernel**2, axis=-1, keepdims=True)) + 0 * kernel
    for arguments, expected in (
        ({}, 0.5 * rms),
        ({"rowwise": "k.rnel$"}, 0.5 * of_rows),
        ({"vector_vars": "kernel"}, 0.25),
        ({"vector_vars": "kernel", "vector_lr_scale": 0.125}, 0.0625),
        ({"scale_parameter": False}, 0.5),
        ({"min_rms": 2.0}, 1.0),
    ):
        found = step_size(Tiger(**kwargs, **arguments), weights, "kernel")
        np.testing.assert_allclose(found, expected + 0 * kernel, rtol=1e-5)
    bad = [{name: np.full_like(value, np.nan) for name, value in weights.items()}]
    (found,) = run(
        Tiger(nonfinite="shrink", shrink_ratio=0.5, center_one_vars="kernel"), weights, bad
    )
    np.testing.assert_allclose(found["kernel"], (kernel + 1) / 2, rtol=1e-6)
    np.testing.assert_allclose(found["bias"], weights["bias"] / 2, rtol=1e-6)


def test_the_name_of_a_layer_does_not_choose_the_rule():
    dense = keras.layers.Dense(2, name="my_beta_gamma_embeddings", use_bias=False)
    dense.build((None, 3))
    kernel = values([dense.kernel])[0]
    stepper(Tiger(0.5, weight_decay=0.0), [dense.kernel])([np.ones_like(kernel)])
    moved = kernel - values([dense.kernel])[0]
    np.testing.assert_allclose(moved, 0.5 * np.sqrt(np.mean(kernel**2)) + 0 * kernel, rtol=1e-5)


def test_a_matrix_of_zeros_moves():
    zeros = {"kernel": np.zeros((3, 2), "float32")}
    np.testing.assert_allclose(step_size(Tiger(0.5), zeros, "kernel"), 5e-4, rtol=1e-6)
    assert not step_size(Tiger(0.5, min_rms=0.0), zeros, "kernel").any()


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("beta", [0.0, 0.965])
def test_no_sequence_of_bad_gradients_ruins_it(steps, beta):
    weights, rng = start(), np.random.default_rng(0)
    micro_steps = random_gradients(weights, 60)
    for gradients in micro_steps[:40]:
        for gradient in gradients.values():
            gradient.flat[0] = rng.choice([np.nan, np.inf, -np.inf, 3e38, -3e38, 9e18, 1.0])
    optimizer = Tiger(0.01, beta, gradient_accumulation_steps=steps)
    found = run(optimizer, weights, micro_steps)
    assert all(np.isfinite(value).all() for value in found[-1].values())
    assert all(np.isfinite(value).all() for value in values(optimizer.variables))
    assert all(np.all(found[-1][name] != found[-5][name]) for name in weights)


@pytest.mark.slow
def test_bad_batches_leave_healthy_weights_as_they_are():
    weights = start()
    good, bad = random_gradients(weights, 6), random_gradients(weights, 200, seed=2)
    spoil(bad, range(200), weights)
    optimizer, alone = Tiger(0.01), Tiger(0.01)
    found = run(optimizer, weights, [*good[:3], *bad, *good[3:]])
    assert all_equal(list(found[-1].values()), last(alone, weights, good))
    assert int(optimizer.skipped_steps) == 200
    before, after = run(Tiger(0.01, nonfinite="shrink"), weights, [*good[:1], *bad])[:: len(bad)]
    np.testing.assert_allclose(after["kernel"], 0.134 * before["kernel"], rtol=1e-3)


@pytest.mark.parametrize("kwargs", [{}, {"gradient_accumulation_steps": 2}])
def test_a_rate_that_is_not_finite_moves_nothing(kwargs):
    weights = {**start("kernel", "bias"), "embeddings": np.float32([[1e30, 1.0], [1.0, 1.0]])}
    micro_steps = exact_gradients(weights, 2)
    optimizer = Tiger(lambda: float("nan"), **kwargs)
    found = last(optimizer, weights, micro_steps)
    assert all_equal(found, list(weights.values()))
    # The mean square of the first row is not a float32.
    found = last(Tiger(0.5, **kwargs), weights, micro_steps)[-1]
    assert found[0].tolist() == weights["embeddings"][0].tolist()
    assert np.all(found[1] != 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("clipping", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_clipping_is_that_of_micro_gradients(clipping):
    weights = {"kernel": np.ones((2, 2), "float32")}
    # The clipped first one is smaller than the second, in the place where that is not 0.
    micro_steps = [{"kernel": np.full((2, 2), 5.0, "float32")}, {"kernel": np.zeros((2, 2))}]
    micro_steps[1]["kernel"][0, 0] = -0.75
    kwargs = {"learning_rate": 0.5, "weight_decay": 0.0, "gradient_accumulation_steps": 2}
    (found,) = last(Tiger(**kwargs, **{clipping: 0.5}), weights, micro_steps)
    (without,) = last(Tiger(**kwargs), weights, micro_steps)
    assert without.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    # 0.5 - 0.5, or 0.25 - 0.5, if the norm is clipped
    first = 1.0 if clipping == "clipvalue" else 1.5
    assert found.tolist() == [[first, 0.5], [0.5, 0.5]]


def test_a_bad_gradient_does_not_enter_the_global_norm():
    both = start("kernel", "bias")
    micro_steps = spoil(random_gradients(both, 3), [0, 1, 2], ["bias"])
    alone = [{"kernel": gradients["kernel"]} for gradients in micro_steps]
    found = last(Tiger(0.1, global_clipnorm=1e-3), both, micro_steps)
    expected = last(Tiger(0.1, global_clipnorm=1e-3), start("kernel"), alone)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)


def test_a_lion_with_equal_betas_and_twice_the_state_does_the_same():
    weights = start("kernel", "bias")
    micro_steps = random_gradients(weights, 24)
    rate, beta = 0.01, 0.9
    lion = keras.optimizers.Lion(rate, beta, beta, gradient_accumulation_steps=4)
    tiger = Tiger(rate, beta, 0.0, gradient_accumulation_steps=4, scale_parameter=False)
    assert all_equal(last(tiger, weights, micro_steps), last(lion, weights, micro_steps))
