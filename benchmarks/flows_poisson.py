"""Poisson flow: which points are left on their way, and how many added dimensions are best?

    python flows_poisson.py

First the field of 400 points, which is known: what is left far from them at the end does not depend
on a network. Then networks, trained on the mixture that the points are drawn from. Distances stand
beside their floor, what two sets of data have between them.
"""

import argparse
import math

import numpy as np
from mixture import Mixture
from timing import print_table

POINTS = 400
HEADERS = (
    *("high", "low", "quantile", "levels", "far from all points", "after the last hop"),
    *("sliced Wasserstein", "after the last hop"),
)
# sigma at time 1, sigma at the end, quantile of the lengths of what sampling begins with, and whether
# each sample has levels of its own.
SETTINGS = (
    (40.0, 0.02, 1.0, False),
    (40.0, 0.001, 1.0, False),
    (80.0, 0.001, 0.99, False),
    (40.0, 0.02, 1.0, True),
    (40.0, 0.001, 1.0, True),
    (80.0, 0.001, 0.99, True),  # the defaults of PoissonFlow
)
AT_ONCE = 5000


def field_table(arguments):
    """Shares of samples that end far from all points, and their distance, of the exact field."""
    from keras_ext.metrics import sliced_wasserstein

    mixture, count = Mixture(), arguments.field_count
    # Both sets of points are drawn anew, as the 400 are: that noise is in the floor, too.
    floors = [
        sliced_wasserstein(
            np.random.default_rng(seed).choice(mixture.sample(POINTS, 50 + seed), count),
            mixture.sample(count, 80 + seed),
        )
        for seed in range(10)
    ]
    rows = []
    for setting in SETTINGS:
        found = []
        for seed in arguments.seeds:
            data = mixture.sample(POINTS, seed).astype("float32")
            ends = field_ends(data, *setting, count, arguments.field_steps, seed)
            far = [np.mean(distances(each, data) > 0.3) for each in ends]
            real = mixture.sample(count, 100 + seed)
            found.append((*far, *(sliced_wasserstein(each, real) for each in ends)))
        shares, values = np.split(np.array(found), 2, axis=1)
        cells = [f"{100 * share:.3f} %" for share in shares.mean(0)]
        pairs = zip(values.mean(0), values.std(0), strict=True)
        cells += [f"{mean:.3f} ± {std:.3f}" for mean, std in pairs]
        rows.append([*setting[:3], "its own" if setting[3] else "common", *cells])
    title = (
        f"Exact field of {POINTS} points, D = 1, {count} samples, {arguments.field_steps} Heun steps, "
        f"seeds {arguments.seeds}"
    )
    print_table(title, HEADERS, rows)
    print(f"Floor: {np.mean(floors):.3f} ± {np.std(floors):.3f}.\n")


def field_ends(data, high, low, quantile, own, count, steps, seed):
    """Where the solution ends, and after the last hop, to the mean of the data there: two (n, 2)."""
    from keras import ops

    from keras_ext.diffusion import EDMSchedule, compiled, ode_sample, poisson_kernel

    schedule = EDMSchedule(low, high)
    velocity = poisson_kernel(1, schedule).field(data)

    def mean(x, t, k):
        t = ops.clip(schedule.t_of_sigma(k * schedule.sigma(t)), 0.0, 1.0)
        return x - (schedule.sigma(t) / schedule.slopes(t)[1])[:, None] * velocity(x, t)

    settings = {"prediction": "x0", "return_trajectory": True}
    run = compiled(ode_sample, mean, schedule, steps, **settings)
    # The prior, and the levels of each sample, as PoissonFlow has them for d = 2 and D = 1.
    rng = np.random.default_rng(seed)
    angles, shares = 2.0 * np.pi * rng.random(count), quantile * rng.random(count)
    length = np.sqrt((1.0 - shares) ** -2 - 1.0)
    k = np.minimum(1.0, np.sqrt(3.0 / (1.0 + length**2))) if own else np.ones(count)
    x = (high * k * length)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    ends = []
    for part in np.split(np.arange(count), range(AT_ONCE, count, AT_ONCE)):
        conditions = {"k": k[part].astype("float32")}
        ends.append(np.array(run(x[part], conditions=conditions).trajectory[-2:]))
    return np.concatenate(ends, axis=1)


def distances(x, data):
    """How far each of x is from the nearest of the data."""
    parts = np.split(x, range(AT_ONCE, len(x), AT_ONCE))
    return np.concatenate(
        [np.linalg.norm(part[:, None] - data, axis=-1).min(axis=-1) for part in parts]
    )


def network_table(arguments):
    """Distances of samples of trained networks, by D."""
    import keras

    from keras_ext.diffusion import PoissonFlow
    from keras_ext.metrics import sliced_wasserstein, two_sample_floor
    from keras_ext.models import MLPDenoiser

    mixture, count = Mixture(), arguments.count
    data = mixture.sample(20_000, seed=7).astype("float32")
    floor = two_sample_floor(
        sliced_wasserstein, mixture.sample(4 * count), sizes=(count, count), repeats=10
    )
    rows = []
    for D in arguments.dimensions:
        found = {steps: [] for steps in arguments.steps}
        for seed in arguments.seeds:
            keras.utils.set_random_seed(seed)
            model = PoissonFlow(MLPDenoiser(2), D, seed=seed)
            rate = keras.optimizers.schedules.CosineDecay(5e-3, arguments.epochs * 20)
            model.compile(
                keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.995), jit_compile=True
            )
            model.fit(data, batch_size=1000, epochs=arguments.epochs, verbose=0)
            for steps in arguments.steps:
                x = np.array(model.sample(count, steps, seed=seed).x)
                distance = np.linalg.norm(x[:, None] - mixture.means[None], axis=-1).min(axis=1)
                real = mixture.sample(count, 100 + seed)
                found[steps].append((sliced_wasserstein(x, real), np.mean(distance > 0.5)))
        cells = []
        for steps in arguments.steps:
            wasserstein, far = np.array(found[steps]).T
            cells += [f"{np.mean(wasserstein):.3f} ± {np.std(wasserstein):.3f}"]
            cells += [f"{100 * np.mean(far):.2f} %"]
        rows.append([f"{D:g}", *cells])
    headers = [name for n in arguments.steps for name in (f"{n} steps", "between modes")]
    title = (
        f"Trained networks, {arguments.epochs} epochs of 20 steps, {count} samples, "
        f"seeds {arguments.seeds}: sliced Wasserstein"
    )
    print_table(title, ["D", *headers], rows)
    print(f"Floor: {floor.mean:.3f} ± {floor.std:.3f}.\n")


def poisson_table(arguments):
    """Both tables.

    Args:
        arguments: with the attributes that `add_arguments` gives a parser.
    """
    field_table(arguments)
    network_table(arguments)


def add_arguments(parser):
    """What both tables can be told."""
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--dimensions", nargs="+", type=float, default=[1, 128, math.inf])
    parser.add_argument("--steps", nargs="+", type=int, default=[5, 30], help="Heun, of networks")
    parser.add_argument("--count", type=int, default=10_000, help="samples of networks")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--field-steps", type=int, default=40)
    parser.add_argument(
        "--field-count", type=int, default=20_000, help="samples of the exact field"
    )


def main(words=None):
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    poisson_table(parser.parse_args(words))


if __name__ == "__main__":
    main()
