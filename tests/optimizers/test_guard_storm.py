import keras
import numpy as np
import pytest

from keras_ext.optimizers import GuardedLossScale, NonFiniteGuard
from tests.optimizers.guard_cases import trained

pytestmark = pytest.mark.slow

STEPS = 200
VALUES = [float("nan"), float("inf"), float("-inf"), 1e25]


def adam():
    return keras.optimizers.Adam(0.01)


OPTIMIZERS = {
    "guard": lambda: NonFiniteGuard(adam()),
    "scale": lambda: GuardedLossScale(adam()),
    "both": lambda: GuardedLossScale(NonFiniteGuard(adam()), dynamic_growth_steps=10),
}
STORMS = {
    "at random": lambda rng: rng.random(STEPS) < 0.3,
    "in a row": lambda rng: np.arange(STEPS) // 80 == 1,
}


def storm(name, rows=(0, 1)):
    """Steps of `trained`: which batches are bad, in one of some rows, and by which value."""
    rng = np.random.default_rng(0)
    bad = STORMS[name](rng)
    return [
        [i, int(rng.choice(rows)), float(rng.choice(VALUES))] if bad[i] else [i, None, None]
        for i in range(STEPS)
    ]


def config(name):
    return keras.saving.serialize_keras_object(OPTIMIZERS[name]())


def check(state, calm, steps):
    """Weights and slots are those of a training that never saw the bad batches, to the bit."""
    bad = sum(row is not None for _, row, _ in steps)
    assert state["weights"] == calm["weights"] and state["slots"] == calm["slots"]
    assert all(np.isfinite(w).all() for w in state["weights"])
    assert state["iterations"] == calm["iterations"] == STEPS - bad
    assert state["skipped_steps"] == state["logs"]["skipped_steps"] == bad
    assert calm["skipped_steps"] == 0


@pytest.mark.filterwarnings("ignore:The loss scale has fallen")
@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        ("guard", "at random"),
        ("scale", "in a row"),
        ("both", "at random"),
        ("both", "in a row"),
    ],
)
def test_training_through_a_storm_is_training_without_it(optimizer, name, tmp_path):
    steps = storm(name)
    good = [step for step in steps if step[1] is None]
    calm = trained(None, config(optimizer), good)
    state = trained(
        None, config(optimizer), steps, save_after=STEPS // 2, path=str(tmp_path / "m.keras")
    )
    check(state, calm, steps)


@pytest.mark.parametrize("optimizer", ["guard", "scale"])
def test_a_storm_over_one_replica_does_no_harm(two_replicas, optimizer, tmp_path):
    steps = storm("at random", rows=[0])[: STEPS // 2] + storm("in a row", rows=[1])[STEPS // 2 :]
    good = [step for step in steps if step[1] is None]
    case = {"name": "guard_cases.trained", "optimizer": config(optimizer)}
    calm = two_replicas(**case, steps=good)
    half = {"save_after": STEPS // 2, "path": str(tmp_path / "m.keras")}
    check(two_replicas(**case, steps=steps, **half), calm, steps)


@pytest.mark.parametrize("replica", [0, 1])
def test_keras_sees_the_bad_rows_of_the_first_replica_only(two_replicas, replica):
    scaler = keras.optimizers.LossScaleOptimizer(adam())
    config = keras.saving.serialize_keras_object(scaler)
    steps = [[0, None, None], [1, replica, float("nan")], [2, None, None]]

    def train():
        return two_replicas("guard_cases.trained", optimizer=config, steps=steps)

    if replica == 0:
        assert train()["iterations"] == 2
    else:
        with pytest.raises(AssertionError, match="RuntimeError: .* weights are not finite"):
            train()
