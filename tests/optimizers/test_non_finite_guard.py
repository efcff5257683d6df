import keras
import numpy as np
import pytest

from keras_ext.optimizers import GradientAccumulation, GuardedLossScale, NonFiniteGuard, Tiger
from tests.optimizers.steps import all_equal, stepper, values

SHAPES = {"kernel": (3, 2), "embeddings": (5, 2), "gamma": (2,), "bias": (2,), "scale": (2,)}
SCALED = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
BAD = [np.nan, np.inf, -np.inf, 1e25]  # the square of the last one is not a float32


def new_variables():
    rng = np.random.default_rng(0)
    return [
        keras.Variable(rng.normal(size=shape).astype("float32"), name=name)
        for name, shape in SHAPES.items()
    ]


def gradients(seed, bad=None, where=0, none=()):
    """Gradients of these variables, that of the embeddings sparse, with a bad entry."""
    rng = np.random.default_rng(seed)
    found = [rng.normal(size=shape).astype("float32") for shape in SHAPES.values()]
    if bad is not None:
        found[where].flat[-1] = bad
    found[1] = (found[1][[0, 4, 4]], np.array([3, 1, 1]))
    return [None if i in none else gradient for i, gradient in enumerate(found)]


def adam():
    return keras.optimizers.AdamW(0.1, weight_decay=0.01, clipnorm=1.0, use_ema=True)


def counters(optimizer):
    return int(optimizer.skipped_steps), int(optimizer.consecutive_skips)


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_bad_step_changes_nothing(jit_compile):
    variables, optimizer = new_variables(), NonFiniteGuard(adam())
    step = stepper(optimizer, variables, jit_compile)
    step(gradients(0))
    everything = [*variables, *optimizer.inner_optimizer.variables]
    before, skipped = values(everything), 0
    for bad in BAD:
        for where in range(len(SHAPES)):
            step(gradients(1, bad, where))
            skipped += 1
            assert all_equal(values(everything), before)
            assert counters(optimizer) == (skipped, skipped)
    step(gradients(2))
    assert not any(np.array_equal(a, b) for a, b in zip(values(variables), before, strict=False))
    assert counters(optimizer) == (skipped, 0)
    assert int(optimizer.iterations) == 2


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_good_steps_are_those_of_the_optimizer_inside():
    alone, guarded = new_variables(), new_variables()
    inner, optimizer = adam(), NonFiniteGuard(adam())
    step_alone, step_guarded = stepper(inner, alone), stepper(optimizer, guarded)
    for seed in range(4):
        step_alone(gradients(seed, none=[2]))
        step_guarded(gradients(seed, none=[2]))
        step_guarded(gradients(seed, np.nan, none=[2]))
    for a, b in zip(values(alone), values(guarded), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert all_equal([values(guarded)[2]], [values(new_variables())[2]])
    assert counters(optimizer) == (4, 1)


def test_shrinking_moves_all_weights_to_their_centre_and_nothing_else():
    variables, optimizer = new_variables(), NonFiniteGuard(adam(), "shrink", shrink_ratio=0.75)
    step = stepper(optimizer, variables)
    step(gradients(0))
    before, slots = values(variables), values(optimizer.inner_optimizer.variables)
    step(gradients(1, np.inf))
    step(gradients(1, np.nan, where=1))
    for name, old, new in zip(SHAPES, before, values(variables), strict=True):
        centre = 1.0 if name in ("gamma", "scale") else 0.0
        np.testing.assert_allclose(new - centre, (old - centre) * 0.75**2, rtol=1e-6, atol=1e-7)
    assert all_equal(values(optimizer.inner_optimizer.variables), slots)
    assert counters(optimizer) == (2, 2)


def test_what_shrinks_still_keeps_its_constraint():
    kernel = keras.Variable(np.eye(2, dtype="float32"), name="kernel")
    kernel.constraint = keras.constraints.UnitNorm()
    step = stepper(NonFiniteGuard("sgd", "shrink", shrink_ratio=0.5), [kernel])
    step([np.full((2, 2), np.nan, "float32")])
    np.testing.assert_allclose(values([kernel])[0], np.eye(2), atol=1e-6)


class Diverging(keras.optimizers.schedules.LearningRateSchedule):
    """1, 1, and then NaN."""

    def __call__(self, step):
        return keras.ops.where(keras.ops.cast(step, "float32") < 2, 1.0, np.nan)


def test_a_learning_rate_that_is_not_finite_makes_a_step_bad():
    variable = keras.Variable(np.zeros(2, "float32"))
    optimizer = NonFiniteGuard(keras.optimizers.SGD(Diverging()))
    step = stepper(optimizer, [variable])
    for _ in range(5):
        step([np.ones(2, "float32")])
    assert values([variable])[0].tolist() == [-2.0, -2.0]
    assert counters(optimizer) == (3, 3)


def test_it_guards_all_optimizers_of_a_multi_optimizer():
    variables = new_variables()
    rates = keras.optimizers.SGD(0.5), keras.optimizers.Adam(0.5)
    table = keras.optimizers.OptimizerMap(rates[0], {"kernel": rates[1]})
    optimizer = NonFiniteGuard(keras.optimizers.MultiOptimizer(table))
    step = stepper(optimizer, variables)
    step(gradients(0))
    before = values(variables)
    step(gradients(1, np.nan))
    rates[1].learning_rate = np.inf
    step(gradients(1))
    assert all_equal(values(variables), before)
    assert counters(optimizer) == (2, 2)


def test_a_bad_micro_batch_is_left_out_of_its_window():
    some, others = new_variables(), new_variables()
    optimizers = [NonFiniteGuard(GradientAccumulation("sgd", 2)) for _ in range(2)]
    steps = [stepper(o, v) for o, v in zip(optimizers, (some, others), strict=True)]
    for step, seeds in zip(steps, ([0, None, 1], [0, 1]), strict=True):
        for seed in seeds:
            step(gradients(9, np.nan) if seed is None else gradients(seed))
    assert all_equal(values(some), values(others))
    assert int(optimizers[0].iterations) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "zero"}, "mode='zero'"),
        ({"mode": "shrink", "shrink_ratio": 1.01}, "shrink_ratio=1.01"),
        ({"mode": "shrink", "shrink_ratio": float("nan")}, "shrink_ratio=nan"),
        ({"shrink_ratio": 0.5}, 'shrink_ratio has an effect only with mode="shrink"'),
        ({"inner_optimizer": NonFiniteGuard("sgd")}, "cannot stand around NonFiniteGuard"),
        ({"inner_optimizer": SCALED}, "cannot stand around"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NonFiniteGuard(**{"inner_optimizer": "sgd", **arguments})


def test_a_configuration_from_before_arguments_without_effect_raised_is_read():
    for optimizer, older in [
        (NonFiniteGuard("sgd"), {"shrink_ratio": 0.99}),
        (GuardedLossScale("sgd", dynamic=False), {"min_scale": 2.0**-14, "max_scale": 2.0**24}),
        (Tiger(1e-3), {"shrink_ratio": 0.99}),
        (Tiger(1e-3, scale_parameter=False), {"min_rms": 1e-3, "vector_lr_scale": 0.5}),
    ]:
        config = optimizer.get_config()
        assert type(optimizer).from_config({**config, **older}).get_config() == config
