"""Pictures by a flow that goes straight: rectified flow, reflow, and a transport between two sets.

    python examples/rectified_flow.py

trains a U-Net on scikit-learn's digits of 8 x 8 to carry noise to them, makes pairs of noise and
digits with it, and trains a second flow on the pairs, in some minutes on two cores. It writes into
`rectified_output`

- `trajectories.png`, how images come out of noise, before and after reflow;
- `one_step.png`, what one step of Euler's gives before and after reflow, and after distillation,
  beside what many steps give;
- `transport.png`, digits 0 to 4 carried to digits 5 to 9, by a flow between the two sets;
- `model.keras`, the second flow.

It prints how far the curves are from straight lines and what the transport costs, the mean squared
distance of an image from what it came from. With images of your own: see `examples/diffusion.py`.
Without labels the transport is from the images to their negatives.
"""

import argparse
import time
from pathlib import Path

import keras
import numpy as np
from diffusion_pictures import grid
from image_data import read_images

from keras_ext.diffusion import RectifiedFlow
from keras_ext.models import UNet
from keras_ext.optimizers import GuardedLossScale


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="default: scikit-learn's digits")
    parser.add_argument("--size", type=int, help="height and width of the images of a folder")
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64], help="of each level")
    parser.add_argument(
        "--precision", default="float32", choices=["float32", "mixed_float16", "mixed_bfloat16"]
    )
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    parser.add_argument("--epochs", type=int, default=30, help="of the first flow")
    parser.add_argument("--reflow-epochs", type=int, default=15, help="of the flows on its pairs")
    parser.add_argument("--pairs", type=int, default=3000, help="that the second is trained on")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--ema", type=float, default=0.99, help="momentum of the averages")
    parser.add_argument("--steps", type=int, default=20, help="of the solver, Heun's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default=Path("rectified_output"), type=Path)
    return parser.parse_args()


def optimizer_of(args, count, epochs, rate=1.0):
    """Adam with averages, warmed up and then ever slower."""
    steps = epochs * -(-count // args.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=rate * args.learning_rate, warmup_steps=min(100, steps // 10)
    )
    optimizer = keras.optimizers.Adam(rate, use_ema=True, ema_momentum=args.ema)
    return GuardedLossScale(optimizer) if args.precision == "mixed_float16" else optimizer


def fitted(args, model, data, count, epochs, rate=1.0):
    """The model, trained on data, or on pairs."""
    model.compile(optimizer_of(args, count, epochs, rate), jit_compile=args.jit)
    start = time.perf_counter()
    model.fit(data, batch_size=args.batch_size, epochs=epochs, verbose=2)
    print(f"trained in {time.perf_counter() - start:.0f} s", flush=True)
    return model


def new_flow(args, shape, **settings):
    """A flow that knows nothing."""
    network = UNet(shape, tuple(args.channels), dtype=args.precision)
    return RectifiedFlow(network, time_sampling="low_discrepancy", seed=args.seed, **settings)


def report(name, model, noise, pairs):
    """Prints the straightness of a flow, and what its transport costs."""
    cost = np.mean(np.sum(np.square(pairs[1] - pairs[0]), axis=(1, 2, 3)))
    print(f"{name:16} straightness {model.straightness(noise, 50):8.3f}, cost {cost:8.3f}")


def draw_trajectories(args, flows, noise):
    """Some states of some images, one flow below the other."""
    rows, names = [], []
    knots = np.unique(np.linspace(0, args.steps, 9).astype(int))
    for name, flow in flows.items():
        settings = {"solver": "heun", "return_trajectory": True}
        states = np.asarray(flow.sample(noise[:3], args.steps, **settings).trajectory)
        rows += list(np.moveaxis(states[knots], 0, 1))
        names += [name] * 3
    times = [f"t={1 - knot / args.steps:.2f}" for knot in knots]
    grid(np.stack(rows), args.output / "trajectories.png", names, times)


def split(images, seed):
    """Two sets of as many images: classes of the first half and of the second, or negatives."""
    if len(images.names) < 2:
        return images.values, -images.values, "images", "negatives"
    low = images.labels < len(images.names) // 2
    sets = images.values[low], images.values[~low]
    rng, count = np.random.default_rng(seed), min(map(len, sets))
    sets = [each[rng.permutation(len(each))[:count]] for each in sets]
    half = len(images.names) // 2
    names = images.names
    return *sets, f"{names[0]} to {names[half - 1]}", f"{names[half]} to {names[-1]}"


def carry(args, images):
    """The transport between two sets, before and after reflow."""
    x1, x0, source, target = split(images, args.seed)
    independent = np.mean(np.sum(np.square(x1 - x0), axis=(1, 2, 3)))
    print(
        f"from {source} to {target}, {len(x0)} images each; independent pairs cost {independent:.3f}"
    )
    first = fitted(
        args, new_flow(args, x0.shape[1:], paired=False), (x0, x1), len(x0), 2 * args.epochs
    )
    pairs = first.reflow(x1, args.steps, "heun")
    report("transport", first, x1, pairs)
    second = fitted(args, first.copy(paired=True), pairs, len(x0), 2 * args.reflow_epochs, rate=0.5)
    again = second.reflow(x1, args.steps, "heun")
    report("after reflow", second, x1, again)
    one = np.asarray(second.sample(x1[:10], 1).x)
    names = [source, f"{target}, {args.steps} steps", "after reflow", "in one step"]
    rows = [x1[:10], pairs[0][:10], again[0][:10], one]
    grid(np.stack(rows), args.output / "transport.png", names)


def main():
    """Trains, straightens, draws, measures, saves."""
    args = arguments()
    args.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(args.seed)
    images = read_images(args.data, args.size)
    data = images.values
    print(f"{len(data)} images {data.shape[1:]}", flush=True)
    noise = np.random.default_rng(args.seed).normal(size=(500, *data.shape[1:])).astype("float32")

    first = fitted(args, new_flow(args, data.shape[1:]), data, len(data), args.epochs)
    pairs = first.reflow(args.pairs, args.steps, "heun", seed=args.seed)
    second = fitted(args, first.copy(), pairs, args.pairs, args.reflow_epochs, rate=0.5)
    optimizer = optimizer_of(args, args.pairs, args.reflow_epochs, rate=0.5)
    settings = {"epochs": args.reflow_epochs, "batch_size": args.batch_size, "verbose": 2}
    distilled = second.distill(pairs, optimizer=optimizer, **settings)

    chosen = np.random.default_rng(args.seed).integers(len(data), size=len(noise))
    independent = np.mean(np.sum(np.square(noise - data[chosen]), axis=(1, 2, 3)))
    print(f"independent noise and images cost {independent:.3f}")
    flows = {"before": first, "after reflow": second}
    for name, flow in flows.items():
        report(name, flow, noise, flow.reflow(noise, args.steps, "heun"))
    draw_trajectories(args, flows, noise)
    many = first.sample(noise[:10], args.steps, "heun").x
    rows = [many, *(flow.sample(noise[:10], 1).x for flow in (first, second, distilled))]
    names = [f"{args.steps} steps", "one, before", "one, after reflow", "one, distilled"]
    grid(np.stack([np.asarray(row) for row in rows]), args.output / "one_step.png", names)
    for name, flow in {**flows, "distilled": distilled}.items():
        error = np.mean(
            np.square(
                np.asarray(flow.sample(noise, 1).x) - first.reflow(noise, args.steps, "heun")[0]
            )
        )
        print(f"{name:16} one step is {error**0.5:.3f} from many steps before, root mean square")
    second.save(args.output / "model.keras")
    carry(args, images)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
