"""Does FlatNCE train better than InfoNCE in small batches, and is it floating point that counts?

Two tables. Rounding: how far the gradients of the scores are off in float32, by how far the
positive is above the negatives, for cross-entropy, the softplus form (`InfoNCE`) and `FlatNCE`;
the truth is computed in float64 from the same float32 scores. Training: an encoder of digits
learns from pairs of two images of one digit, each batch of other digits, by each of the three
losses, with two epsilons of Adam and two temperatures; what is measured is how well the nearest
known images of its vectors tell held-out digits. All arms of a seed see the same pairs in the same
order, from the same initial weights.

    python benchmarks/flatnce.py --data folder_of_data_sets
"""

import argparse
import gzip
import itertools
from pathlib import Path

import keras
import numpy as np
from keras import ops
from timing import compilers, print_table, to_numpy, value_and_gradient

from keras_ext.losses import FlatNCE, InfoNCE
from keras_ext.ops import unit_vectors

FAR = 16.0
"""The gap from which on the table of rounding shows no right digit of cross-entropy's gradient."""


class CrossEntropy(keras.losses.Loss):
    """What `InfoNCE` computes without groups and hard negatives, by the cross-entropy of Keras."""

    def __init__(self, temperature, **kwargs):
        super().__init__(name="cross_entropy", **kwargs)
        self.temperature = temperature

    def call(self, y_true, y_pred):
        vectors = unit_vectors(y_pred)
        scores = ops.matmul(vectors[:, 0], ops.transpose(vectors[:, 1])) / self.temperature
        own = ops.arange(ops.shape(scores)[0])
        return keras.losses.sparse_categorical_crossentropy(own, scores, from_logits=True)


ARMS = {"cross-entropy": CrossEntropy, "softplus": InfoNCE, "Flat": FlatNCE}


def of_scores(cls):
    """A loss of the scores of one anchor: with an anchor of 1, vectors of width 1 are scores."""
    loss = cls(temperature=1.0, score="dot", reduction="none")
    return lambda scores: loss(None, ops.concatenate([ops.ones((1,)), scores])[None, :, None])


def cross_entropy_of_scores(scores):
    """The cross-entropy of Keras of the first of some scores."""
    return keras.losses.sparse_categorical_crossentropy(
        np.array([0]), scores[None], from_logits=True
    )


OF_SCORES = {
    "cross-entropy": cross_entropy_of_scores,
    "softplus": of_scores(InfoNCE),
    "Flat": of_scores(FlatNCE),
}


def exact_gradient(scores, flat):
    """The gradient of the scores in float64; the first is the positive."""
    scores = scores.astype("float64")
    shares = np.exp(scores[1:] - scores[0])
    shares = shares / (shares.sum() + (0.0 if flat else 1.0))
    return np.append(-shares.sum(), shares)


def rounding(arguments):
    """Prints the relative error of the gradients."""
    rows = []
    for way, compiled in compilers().items():
        if way == "graph":
            continue  # the same kernels as eager execution
        for arm, function in OF_SCORES.items():
            gradient = compiled(value_and_gradient(function))
            errors = {"positive": [], "negatives": []}
            for gap in arguments.gaps:
                rng = np.random.default_rng(arguments.seed)
                worst = np.zeros(2)
                for _ in range(arguments.draws):
                    negatives = rng.normal(size=arguments.batch - 1)
                    positive = gap + np.logaddexp.reduce(negatives)
                    scores = np.append(positive, negatives).astype("float32")
                    actual = to_numpy(gradient(ops.convert_to_tensor(scores))[1]).astype("float64")
                    exact = exact_gradient(scores, arm == "Flat")
                    off = abs(actual - exact) / abs(exact)
                    worst = np.maximum(worst, [off[0], off[1:].max()])
                errors["positive"].append(worst[0])
                errors["negatives"].append(worst[1])
            rows += [
                [way, arm, of, *(f"{error:.0e}" for error in values)]
                for of, values in errors.items()
            ]
    print_table(
        f"Largest relative error of a gradient in float32, {arguments.batch - 1} negatives, "
        f"{arguments.draws} draws",
        ["", "loss", "gradient of", *(f"gap {gap:g}" for gap in arguments.gaps)],
        rows,
    )


def read_digits(folder):
    """The 10,000 images, uint8 (10000, 28, 28), and the digits."""
    with gzip.open(folder / "mnist_t10k" / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), "uint8", offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / "mnist_t10k" / "t10k-labels-idx1-ubyte.gz") as file:
        return images, np.frombuffer(file.read(), "uint8", offset=8)


def pairs_of(images, digits, seed, steps, batch):
    """Pairs of two images of one digit, uint8 (steps * batch, 2, 784); no digit twice a batch."""
    rng = np.random.default_rng(seed)
    of_digit = [np.flatnonzero(digits == digit) for digit in range(10)]
    chosen = [
        rng.choice(of_digit[digit], 2, replace=False)
        for _ in range(steps)
        for digit in rng.choice(10, batch, replace=False)
    ]
    return images[np.array(chosen)].reshape(len(chosen), 2, -1)


def encoder(seed, width):
    """Vectors of images (..., 784), uint8."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((None, 784), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(width // 4),
        ]
    )


def unit_rows(model, images):
    """The vectors of images as rows of length 1."""
    rows = images.reshape(len(images), 1, -1)
    vectors = rows / 255 if model is None else model.predict(rows, batch_size=1000, verbose=0)
    return to_numpy(unit_vectors(vectors.reshape(len(images), -1).astype("float32")))


def quality(model, known, digits, images, truth, neighbours=5):
    """The share of held-out digits that the majority of their nearest known ones names.

    Args:
        model: an encoder, or None for the pixels themselves.
        known: images with known digits.
        digits: these.
        images: held-out images.
        truth: their digits.
        neighbours: how many vote; the cosines break a tie.
    """
    cosines = unit_rows(model, images) @ unit_rows(model, known).T
    nearest = np.argpartition(-cosines, neighbours, axis=1)[:, :neighbours]
    votes = np.zeros((len(images), 10))
    near = 1 + 1e-3 * np.take_along_axis(cosines, nearest, axis=1)
    np.add.at(votes, (np.arange(len(images))[:, None], digits[nearest]), near)
    return np.mean(votes.argmax(axis=1) == truth)


def train(pairs, seed, temperature, loss, epsilon, rate, arguments):
    """An encoder that was trained, and the gaps of its last 100 batches."""
    model = encoder(seed, arguments.width)
    optimizer = keras.optimizers.Adam(rate, epsilon=epsilon)
    model.compile(
        optimizer,
        ARMS[loss](temperature=temperature),
        jit_compile=True,
        steps_per_execution=min(100, arguments.steps),
    )
    no_groups = np.full(len(pairs), -1)
    model.fit(pairs, no_groups, batch_size=arguments.batch, shuffle=False, verbose=0)
    last = pairs[-100 * arguments.batch :]
    vectors = model.predict(last, batch_size=1000, verbose=0)
    vectors = vectors.reshape(-1, arguments.batch, *vectors.shape[1:])
    behind = FlatNCE(temperature, reduction="none")
    gaps = [to_numpy(behind(None, batch)) for batch in vectors]
    return model, -np.concatenate(gaps)


def spread(values, digits=1):
    """Mean and standard deviation, as text."""
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def training(arguments):
    """Prints the quality of the vectors by loss, epsilon and temperature."""
    images, digits = read_digits(arguments.data)
    held_out = images[-arguments.held_out :], digits[-arguments.held_out :]
    known = images[: arguments.known], digits[: arguments.known]
    arms = list(
        itertools.product(arguments.temperatures, ARMS, arguments.epsilons, arguments.rates)
    )
    results = {arm: [] for arm in arms}
    untrained = []
    for seed in arguments.seeds:
        pairs = pairs_of(*known, seed, arguments.steps, arguments.batch)
        untrained.append(100 * quality(encoder(seed, arguments.width), *known, *held_out))
        for arm in arms:
            model, gaps = train(pairs, seed, *arm, arguments)
            score = 100 * quality(model, *known, *held_out)
            # What InfoNCE's gradient is multiplied by.
            rest = np.mean(1 / (1 + np.exp(gaps.astype("float64"))))
            results[arm].append((score, np.median(gaps), 100 * np.mean(gaps > FAR), rest))
            keras.backend.clear_session()
    rows = []
    for (temperature, loss, epsilon, rate), found in results.items():
        score, gap, far, rest = np.array(found).T
        cells = [spread(score), spread(gap), f"{far.mean():.1f}", f"{rest.mean():.0e}"]
        rows.append([temperature, loss, f"{epsilon:g}", f"{rate:g}", *cells])
    print_table(
        f"Held-out digits told by 5 neighbours of {arguments.known}, %: {arguments.steps} steps of "
        f"{arguments.batch} pairs, {len(arguments.seeds)} seeds",
        ["temperature", "loss", "Adam's epsilon", "rate", "accuracy", "median gap"]
        + [f"gaps above {FAR:g}, %", "mean of 1 - p"],
        rows,
    )
    pixels = 100 * quality(None, *known, *held_out)
    print(
        "Mean ± standard deviation over the seeds. Over the last 100 batches, after training: the "
        "gap, by which the positive is above the log-sum-exp of the negatives, and p, the share of "
        "the positive in the softmax. "
        f"Without training {spread(untrained)}, the pixels themselves {pixels:.1f}.\n"
    )
    compare(results, arguments)


def compare(results, arguments):
    """Prints differences of arms, paired by seed."""
    first, *others = arguments.epsilons
    sides = [("softplus", e, "cross-entropy", e) for e in arguments.epsilons]
    sides += [("Flat", e, "softplus", e) for e in arguments.epsilons]
    sides += [(loss, e, loss, first) for e in others for loss in ARMS]
    rows = []
    for temperature, rate in itertools.product(arguments.temperatures, arguments.rates):
        for side in sides:
            loss, epsilon, other, other_epsilon = side
            left, right = (
                np.array(results[temperature, name, e, rate])[:, 0]
                for name, e in ((loss, epsilon), (other, other_epsilon))
            )
            above = f"{np.sum(left > right)} of {len(left)}"
            names = [f"{loss}, {epsilon:g}", f"{other}, {other_epsilon:g}"]
            rows.append([temperature, f"{rate:g}", *names, spread(left - right, 2), above])
    print_table(
        "Differences of accuracy, points, seed by seed",
        ["temperature", "rate", "loss, epsilon", "minus", "mean ± deviation", "above 0"],
        rows,
    )


def main(words=None):
    """Prints the tables that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parts = ["rounding", "training"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--gaps", type=float, nargs="+", default=[4, 8, 12, 16, 20, 24])
    parser.add_argument("--draws", type=int, default=30, help="of scores, for each gap")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--width", type=int, default=128, help="of the hidden layers")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.05, 0.5])
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1e-7, 1e-12], help="of Adam")
    parser.add_argument("--known", type=int, default=1000, help="images to learn from")
    parser.add_argument("--held-out", type=int, default=5000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--seed", type=int, default=0, help="of the scores")
    arguments = parser.parse_args(words)
    if arguments.data is None and "training" in arguments.parts:
        parser.error("Training needs the folder of the data sets. Received: no --data")
    if "rounding" in arguments.parts:
        rounding(arguments)
    if "training" in arguments.parts:
        training(arguments)


if __name__ == "__main__":
    main()
