"""Pictures out of noise: a diffusion model of images, of classes if they have any.

    python examples/diffusion.py

trains a U-Net on scikit-learn's digits of 8 x 8, in about five minutes on two cores, and writes into
`diffusion_output`

- `samples.png`, images of every class;
- `trajectory.png`, how one comes out of noise;
- `guidance.png`, the same seeds drawn towards their class 0, 1, 3 and 7 times;
- `quality.png`, how far samples are from images, against the calls of the network that they take;
- `model.keras`, which another process loads and draws the same images from, bit for bit.

It prints bits per dimension of images that were held out, and whether samples are copies of images
that were trained on. With images of your own: a folder of PNG and JPEG files whose subfolders are
the classes, an .npy or .npz file, or an idx file such as MNIST's:

    python examples/diffusion.py --data t10k-images-idx3-ubyte.gz --epochs 5
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
from diffusion_pictures import grid, quality_curves
from image_data import read_images
from sklearn.neural_network import MLPClassifier

from keras_ext.diffusion import DenoisingDiffusion
from keras_ext.metrics import frechet_distance, two_sample_floor
from keras_ext.models import UNet
from keras_ext.optimizers import GuardedLossScale

FRESH = """
import sys
import keras, keras_ext, numpy as np
label = int(sys.argv[2])
model = keras.saving.load_model(sys.argv[1])
samples = model.sample(8, "heun", 10, label=None if label < 0 else label, seed=5)
np.save(sys.argv[3], samples.x)
"""
# Sampler: calls of a step. ("euler" is "ddim", and "sde", as it is by default, "ddpm".)
CURVES = {
    "ddim": 1,
    "ddpm": 1,
    "edm_stochastic": 2,
    "heun": 2,
    "midpoint": 2,
    "rk4": 4,
    "dpmpp_2m": 1,
    "ab2": 1,
    "ab4": 1,
}


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="default: scikit-learn's digits")
    parser.add_argument("--size", type=int, help="height and width of the images of a folder")
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64], help="of each level")
    parser.add_argument("--schedule", default="cosine")
    parser.add_argument("--prediction", default="v", help="eps, x0, v, velocity or score")
    parser.add_argument(
        "--precision", default="float32", choices=["float32", "mixed_float16", "mixed_bfloat16"]
    )
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--ema", type=float, default=0.995, help="momentum of the averages")
    parser.add_argument("--steps", type=int, default=20, help="of the sampler of the pictures")
    parser.add_argument("--guidance", type=float, default=2.0, help="of samples.png")
    parser.add_argument(
        "--compared", type=int, default=500, help="images that are measured, at most"
    )
    parser.add_argument(
        "--calls", type=int, nargs="+", default=[6, 12, 24, 48], help="points of quality.png"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default=Path("diffusion_output"), type=Path)
    return parser.parse_args()


def split(images, seed):
    """Images and labels to train on, and a fifth that is held out."""
    order = np.random.default_rng(seed).permutation(len(images.values))
    held_out = len(order) // 5
    parts = order[held_out:], order[:held_out]
    labels = images.labels
    return [(images.values[part], None if labels is None else labels[part]) for part in parts]


def build(args, images, steps_per_epoch):
    """The model, compiled."""
    network = UNet(
        images.values.shape[1:],
        tuple(args.channels),
        num_classes=len(images.names) or None,
        dtype=args.precision,
    )
    model = DenoisingDiffusion(
        network,
        args.schedule,
        args.prediction,
        time_sampling="low_discrepancy",
        cond_dropout=0.1 if images.names else 0.0,
        seed=args.seed,
    )
    steps = args.epochs * steps_per_epoch
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=args.learning_rate, warmup_steps=min(100, steps // 10)
    )
    optimizer = keras.optimizers.Adam(rate, use_ema=True, ema_momentum=args.ema)
    if args.precision == "mixed_float16":
        optimizer = GuardedLossScale(optimizer)
    model.compile(optimizer, jit_compile=args.jit)
    return model


def draw_pictures(args, model, names):
    """Samples of every class, a trajectory, and guidance."""
    labels, rows = np.arange(len(names)), names or ["image"]
    shape = (len(rows), -1, *model.sample_shape)
    across = {"sampler": "heun", "steps": args.steps, "seed": args.seed}
    told = {"label": np.repeat(labels, 10), "guidance": args.guidance} if names else {}
    samples = np.asarray(model.sample(10 * len(rows), **across, **told).x).reshape(shape)
    grid(samples, args.output / "samples.png", rows)

    told = {"label": labels} if names else {}
    result = model.sample(len(rows), "ddim", args.steps, **told, seed=1, return_trajectory=True)
    knots = np.unique(np.linspace(0, args.steps, 10).astype(int))
    states = np.moveaxis(np.asarray(result.trajectory)[knots], 0, 1)
    times = [f"t={1 - knot / args.steps:.2f}" for knot in knots]
    grid(np.clip(states, -1.0, 1.0), args.output / "trajectory.png", rows, times)

    if names:
        shown = np.resize(labels, 10)
        scales = [0, 1, 3, 7]
        guided = [model.sample(10, **across, label=shown, guidance=scale).x for scale in scales]
        rows, columns = [f"guidance {scale}" for scale in scales], [names[i] for i in shown]
        grid(np.stack(guided), args.output / "guidance.png", rows, columns)


def features_of(train, labels, seed):
    """A function from images to features: the hidden layer of a classifier, or else the pixels."""
    if labels is None:
        return lambda x: np.reshape(x, (len(x), -1))
    classifier = MLPClassifier((64,), early_stopping=True, max_iter=100, random_state=seed)
    classifier.fit(train.reshape(len(train), -1), labels)

    def features(x):
        x = np.reshape(x, (len(x), -1))
        return np.maximum(x @ classifier.coefs_[0] + classifier.intercepts_[0], 0)

    return features


def compare_samplers(args, model, images, train, labels):
    """The curves of quality against calls, as a picture and as a table."""
    count = min(args.compared, len(images.values) // 2)
    features = features_of(train, labels, args.seed)
    real = features(images.values)
    floor = two_sample_floor(frechet_distance, real, (count, count))
    rng = np.random.default_rng(args.seed)
    reference = real[rng.permutation(len(real))[:count]]
    told = {} if labels is None else {"label": rng.choice(labels, count)}
    curves = {name: [] for name in CURVES}
    for name, calls_of_step in CURVES.items():
        for calls in args.calls:
            result = model.sample(count, name, max(1, calls // calls_of_step), **told, seed=2)
            distance = frechet_distance(reference, features(np.asarray(result.x)))
            curves[name].append((result.calls, distance))
        row = ", ".join(f"{calls} calls {distance:.2f}" for calls, distance in curves[name])
        print(f"{name:14} {row}", flush=True)
    print(
        f"{'floor':14} {floor.mean:.2f} +- {floor.std:.2f}, {count} images against {count} others"
    )
    where = "the pixels" if labels is None else "a classifier's features"
    quality_curves(curves, floor, args.output / "quality.png", f"Frechet distance of {where}")


def bits_per_dimension(args, model, images, held_out, labels):
    """How many bits a number of a held-out image takes at most: the variational bound."""
    if images.width is None:
        print("bits per dimension: the images have no levels")
        return
    nats = model.nll_bound(held_out, labels, width=images.width, seed=args.seed)
    bits = nats / held_out[0].size / np.log(2)
    error = bits.std() / len(bits) ** 0.5
    print(
        f"bits per dimension of {len(bits)} held-out images: at most {bits.mean():.3f} +- {error:.3f} "
        f"(without a model {np.log2(2 / images.width + 1):.3f})"
    )


def nearest(x, others):
    """The distance of each image to the nearest of others."""
    x, others = (np.reshape(each, (len(each), -1)) for each in (x, others))
    squares = (others**2).sum(1) - 2 * x @ others.T + (x**2).sum(1, keepdims=True)
    return np.sqrt(np.maximum(squares.min(1), 0))


def check_copies(model, train, labels, held_out, seed):
    """Whether samples are nearer to the images of training than images that were held out."""
    told = {} if labels is None else {"label": np.resize(labels, len(held_out))}
    samples = np.asarray(model.sample(len(held_out), "heun", 20, **told, seed=seed).x)
    parts = [nearest(x, train) for x in (samples, held_out)]
    of_samples, of_held_out = (np.percentile(each, [5, 50]) for each in parts)
    print(
        "distance to the nearest training image, 5 % and median: "
        f"samples {of_samples[0]:.2f} {of_samples[1]:.2f}, "
        f"held-out images {of_held_out[0]:.2f} {of_held_out[1]:.2f}"
    )


def check_fresh_process(model, folder, label):
    """Saves, loads in a new process, and compares the samples of one seed."""
    path, drawn = folder / "model.keras", folder / "samples.npy"
    model.save(path)
    expected = model.sample(8, "heun", 10, label=None if label < 0 else label, seed=5).x
    subprocess.run([sys.executable, "-c", FRESH, path, str(label), drawn], check=True)
    same = np.array_equal(np.load(drawn), np.asarray(expected))
    print(f"a fresh process draws the same images from {path}, bit for bit: {same}")
    if not same:
        raise SystemExit("Expected the same images.")


def main():
    """Trains, draws, measures, saves."""
    args = arguments()
    args.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(args.seed)
    images = read_images(args.data, args.size)
    (train, labels), (held_out, held_out_labels) = split(images, args.seed)
    print(f"{len(train)} images {train.shape[1:]} to train on, {len(images.names)} classes")
    model = build(args, images, -(-len(train) // args.batch_size))
    start = time.perf_counter()
    model.fit(
        train,
        labels,
        batch_size=args.batch_size,
        epochs=args.epochs,
        validation_data=(held_out, held_out_labels),
        validation_batch_size=256,
        validation_freq=5,
    )
    print(f"trained in {time.perf_counter() - start:.0f} s")
    draw_pictures(args, model, images.names)
    held_out = held_out[: args.compared]
    if held_out_labels is not None:
        held_out_labels = held_out_labels[: args.compared]
    bits_per_dimension(args, model, images, held_out, held_out_labels)
    check_copies(model, train, labels, held_out, args.seed)
    compare_samplers(args, model, images, train, labels)
    check_fresh_process(model, args.output, 0 if images.names else -1)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
