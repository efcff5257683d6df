"""Rectified flow on five Gaussians: distance by steps, straightness, transport cost."""

import time

import keras
import numpy as np
from mixture import Mixture
from timing import print_table

STEPS = (1, 2, 4, 8, 16, 32, 100)


def arguments_of(parser):
    """The arguments of the table."""
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", nargs="+", type=int, default=list(STEPS))
    parser.add_argument("--count", type=int, default=10_000, help="samples that are compared")
    parser.add_argument("--data", type=int, default=30_000, help="points, and pairs of reflow")
    parser.add_argument("--epochs", type=int, default=40, help="of each flow")
    parser.add_argument("--hidden", type=int, default=128, help="width of the network")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--reflow-steps", type=int, default=25, help="of Heun's")


def trained(model, data, arguments, epochs):
    """The model, fitted to data or pairs."""
    steps = epochs * -(-arguments.data // arguments.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps, alpha=0.0, warmup_target=2e-3, warmup_steps=steps // 50
    )
    model.compile(keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.995))
    model.fit(data, batch_size=arguments.batch_size, epochs=epochs, verbose=0)
    return model


def cost_of(pairs):
    """The mean squared distance of pairs."""
    return float(np.mean(np.sum(np.square(pairs[1] - pairs[0]), -1)))


class Closed:
    """The flow of the mixture in closed form, with the methods of a `RectifiedFlow`."""

    def __init__(self, mixture):
        from keras_ext.diffusion import StraightSchedule

        self.velocity = mixture.denoiser(StraightSchedule(), "velocity")

    def sample(self, noise, steps, solver="euler"):
        """Samples, compiled."""
        from keras_ext.diffusion import compiled, flow_sample

        return compiled(flow_sample, self.velocity, steps=steps, solver=solver)(noise)

    def straightness(self, noise, steps):
        """Of its curves."""
        from keras_ext.diffusion import straightness

        return straightness(self.velocity, noise, steps)


def flows_of(seed, arguments):
    """Name -> flow, for a seed: closed form, once and twice rectified, and one step distilled."""
    from keras_ext.diffusion import RectifiedFlow
    from keras_ext.models import MLPDenoiser

    keras.utils.set_random_seed(seed)
    mixture = Mixture()
    data = mixture.sample(arguments.data, seed).astype("float32")
    first = RectifiedFlow(
        MLPDenoiser(2, arguments.hidden), time_sampling="low_discrepancy", seed=seed
    )
    first = trained(first, data, arguments, arguments.epochs)
    pairs = first.reflow(arguments.data, arguments.reflow_steps, "heun", seed=seed)
    second = trained(first.copy(), pairs, arguments, arguments.epochs)
    one_step = trained(
        second.copy(time_sampling="one_step"), pairs, arguments, max(1, arguments.epochs // 4)
    )
    return {
        "closed form": Closed(mixture),
        "rectified once": first,
        "rectified twice": second,
        "twice, one step distilled": one_step,
    }


def measure(arguments):
    """Trains flows of each seed, measures and prints."""
    from keras_ext.metrics import sliced_wasserstein, two_sample_floor

    mixture, count = Mixture(), arguments.count
    floor = two_sample_floor(
        sliced_wasserstein, mixture.sample(4 * count), sizes=(count, count), repeats=10
    )
    distances, bends, costs, seconds = {}, {}, {}, []
    for seed in arguments.seeds:
        start = time.perf_counter()
        flows = flows_of(seed, arguments)
        seconds.append(time.perf_counter() - start)
        noise = np.random.default_rng(seed + 50).normal(size=(count, 2)).astype("float32")
        data = mixture.sample(count, seed + 100).astype("float32")
        costs.setdefault("independent pairs", []).append(cost_of((data, noise)))
        for name, flow in flows.items():
            distilled = name.endswith("distilled")
            for steps in arguments.steps[:1] if distilled else arguments.steps:
                x = np.asarray(flow.sample(noise, steps).x)
                distances.setdefault((name, steps), []).append(sliced_wasserstein(x, data))
            ends = np.asarray(flow.sample(noise, *((1,) if distilled else (50, "heun"))).x)
            costs.setdefault(name, []).append(cost_of((ends, noise)))
            if not distilled:
                bends.setdefault(name, []).append(flow.straightness(noise, 100))
    names = list(dict.fromkeys(name for name, _ in distances))
    rows = [
        [name, *(shown(distances.get((name, steps))) for steps in arguments.steps)]
        for name in names
    ]
    print_table(
        f"Five Gaussians, {arguments.data} points, {arguments.epochs} epochs, {count} samples, "
        f"seeds {arguments.seeds}: sliced Wasserstein by Euler steps",
        ["flow", *map(str, arguments.steps)],
        rows,
    )
    print(
        f"Floor: {floor.mean:.3f} ± {floor.std:.3f}. Width {arguments.hidden}, batches of "
        f"{arguments.batch_size}, {np.mean(seconds):.0f} s a seed to train.\n"
    )
    rows = [[name, shown(bends.get(name), 4), shown(costs[name], 4)] for name in costs]
    print_table("Straightness S and transport cost E |x1 - x0|^2", ["pairs", "S", "cost"], rows)
    before, after = (np.array(bends[f"rectified {times}"]) for times in ("once", "twice"))
    print(f"Reflow divides S by {', '.join(f'{ratio:.0f}' for ratio in before / after)}.")
    rise = np.array(costs["rectified twice"]) - np.array(costs["rectified once"])
    print(f"Change of the cost: {', '.join(f'{each:+.4f}' for each in rise)}.")
    few, many = arguments.steps[0], arguments.steps[-1]
    one, hundred = (
        np.array(distances[key]) for key in (("rectified twice", few), ("rectified once", many))
    )
    print(
        f"Twice at {few} minus once at {many}: "
        f"{', '.join(f'{each:+.4f}' for each in one - hundred)}; floor's deviation {floor.std:.4f}."
    )


def shown(values, digits=3):
    """Mean and deviation over seeds."""
    if values is None:
        return ""
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


rectified = (arguments_of, measure)
