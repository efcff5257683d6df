"""Do micro-batches give the updates of the big batches, in every combination?

That is of optimizers, dense and sparse gradients, a schedule, weight decay and averages of the
weights, loss scaling, replicas, and ways to run. Under loss scaling a batch in the middle of a
window is infinite on one replica, and must leave no trace. Gradients are small integers over 16:
sums and means are exact, no sign flips, and everything must be equal to the bit. Prints the
largest differences of weights, averages, slots and `iterations`; ends with an error if there are.
"""

import argparse
import functools
import itertools
import sys
from collections import defaultdict

import keras
import numpy as np
from micro_batches import REPLICAS, STEPS, WINDOWS, micro_batches, steps_of, train
from timing import BACKEND, print_table

from keras_ext.optimizers import GradientAccumulation, GuardedLossScale, Tiger

AXES = {
    "optimizer": ("Tiger", "Adam", "AdamW", "SGD", "Lion", "Lamb"),
    "gradient": ("dense", "sparse"),
    "feature": ("schedule", "decay", "average"),
    "scaling": ("none", "GuardedLossScale"),
    "replicas": (1, 2),
    "run": ("eager", "graph", "XLA"),
}
EXTRA = {"SGD": {"momentum": 0.75}, "Tiger": {"beta": 0.75}}
FEATURES = {
    "schedule": {"learning_rate": keras.optimizers.schedules.ExponentialDecay(0.125, 1, 0.5)},
    "decay": {"learning_rate": 0.125, "weight_decay": 0.25},
    "average": {"learning_rate": 0.125, "use_ema": True, "ema_momentum": 0.75},
}


def cases():
    """All combinations that can run here, as dicts of a value for each axis."""
    for values in itertools.product(*AXES.values()):
        case = dict(zip(AXES, values, strict=True))
        if BACKEND == "jax":  # there, one operation at a time rounds in another way than a branch
            possible = (case["gradient"], case["replicas"], case["run"]) == ("dense", 1, "XLA")
        else:
            possible = case["replicas"] == 1 or case["run"] != "XLA"
        if possible:
            yield case


def make_optimizer(name, feature, steps, scaling="none"):
    """An optimizer that accumulates, or for one step a bare one."""
    settings = {**EXTRA.get(name, {}), **FEATURES[feature]}
    if name == "Tiger":
        optimizer = Tiger(gradient_accumulation_steps=steps, **settings)
    else:
        optimizer = getattr(keras.optimizers, name)(**settings)
        if steps > 1:
            optimizer = GradientAccumulation(optimizer, steps)
    if scaling == "GuardedLossScale":
        # The scale changes in the middle of a window.
        optimizer = GuardedLossScale(optimizer, initial_scale=1024.0, dynamic_growth_steps=3)
    return optimizer


@functools.cache
def big_batches(name, feature, run):
    """The state after updates from whole batches: dense gradients, no scaling, on one device."""
    indices, rows, matrices = (
        x.reshape(WINDOWS, 1, STEPS * REPLICAS, *x.shape[3:]) for x in micro_batches()
    )
    steps = steps_of((indices, rows / STEPS, matrices / STEPS), poisoned=False)
    return train(lambda: make_optimizer(name, feature, 1), steps, False, run)


def difference(case, strategy=None):
    """The largest difference between the states that micro-batches and big batches lead to.

    Args:
        case: dict of a value for each axis.
        strategy: that of two replicas, if the case has them.

    Returns:
        float, infinite where a state is not finite.
    """
    micro = train(
        lambda: make_optimizer(case["optimizer"], case["feature"], STEPS, case["scaling"]),
        steps_of(micro_batches(), case["scaling"] != "none"),
        case["gradient"] == "sparse",
        case["run"],
        strategy if case["replicas"] > 1 else None,
    )
    big = big_batches(case["optimizer"], case["feature"], case["run"])
    differences = [np.abs(micro[name] - value).max() for name, value in big.items()]
    return float(np.nan_to_num(np.max(differences), nan=np.inf))


def two_replicas():
    """Two replicas on the processor: to be called before TensorFlow starts."""
    import tensorflow as tf

    (device,) = tf.config.list_physical_devices("CPU")
    halves = [tf.config.LogicalDeviceConfiguration(), tf.config.LogicalDeviceConfiguration()]
    tf.config.set_logical_device_configuration(device, halves)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def print_differences(differences):
    """Prints the table.

    Args:
        differences: dict of (optimizer, replicas, run) -> list of floats.

    Raises:
        SystemExit: if one is above 0.
    """
    rows = [[*key, len(found), f"{max(found):.2g}"] for key, found in differences.items()]
    columns = ["optimizer", "replicas", "run as", "cases", "largest difference"]
    print_table(f"{STEPS} micro-batches against one big batch", columns, rows)
    if any(max(found) > 0 for found in differences.values()):
        sys.exit("Micro-batches do not give the updates of the big batches.")


def main():
    """Runs all cases and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for axis in ("optimizer", "run"):
        values = AXES[axis]
        parser.add_argument(f"--{axis}", nargs="+", choices=values, default=values)
    arguments = parser.parse_args()
    strategy = None if BACKEND == "jax" else two_replicas()
    differences = defaultdict(list)
    for case in cases():
        if case["optimizer"] in arguments.optimizer and case["run"] in arguments.run:
            found = difference(case, strategy)
            differences[case["optimizer"], case["replicas"], case["run"]].append(found)
            if found > 0:
                print(f"{found:.2g} in {case}", file=sys.stderr, flush=True)
    print_differences(differences)


if __name__ == "__main__":
    main()
