"""Does an encoder learn a task of long ranges better if it first learns the task's own inputs?

    python examples/long_range.py                 # nested operations on digits, 256 tokens
    python examples/long_range.py --task pixels   # digits of 16 x 16 pixels, read one by one

trains a small RoFormer twice for each seed, with equally many steps:

- from scratch: all steps on the labels;
- self-pretrained: a share of the steps masks tokens of the training inputs, which it guesses
  (`SelfPretrainer`); the others train the same encoder on the labels.

It prints the accuracy on held-out examples and draws the curves. What counts is fixed beforehand: an
effect is a mean difference of more than two standard errors over the seeds; all else is a null
result, and is called that. A few minutes on two cores are few steps: 5,000 and more, on a GPU,
are what the question needs.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import keras
import listops
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from keras_ext.layers import Pooling
from keras_ext.models import RoFormerEncoder
from keras_ext.optimizers import WarmupCosine
from keras_ext.training import SelfPretrainer

POINTS = 8
"""How often a curve is measured."""
EVALUATED = 100
"""Sequences that are read at once when nothing is trained."""


@dataclass
class Task:
    """Sequences of ids, 0 for padding, and their classes, ten of them.

    Args:
        train: ids (n, length) int32 and classes (n,) int32.
        test: the same, of examples that are not trained on.
        vocabulary_size: int, number of ids; the last is the mask.
        mask_ratio: float.
        pooling: "cls" where the first token is the outermost operation, else "mean".
    """

    train: tuple
    test: tuple
    vocabulary_size: int
    mask_ratio: float
    pooling: str


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=("listops", "pixels"), default="listops")
    parser.add_argument("--length", type=int, default=256, help="of listops, 8 or more")
    parser.add_argument("--steps", type=int, default=400, help="of each of the two, in all")
    parser.add_argument("--pretrain-share", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=2000, help="to train on")
    parser.add_argument("--test-examples", type=int, default=400)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--jit", action="store_true", help="compile by XLA, for long runs")
    parser.add_argument("--output", type=Path, default=Path("long_range_output"))
    args = parser.parse_args()
    if not 0 < args.pretrain_share < 1 or args.seeds < 1 or args.steps < 2 * POINTS:
        parser.error(f"--pretrain-share lies in (0, 1), --seeds is 1, --steps {2 * POINTS} or more")
    return args


def nested_operations(args):
    """Values of nested operations."""
    count = args.examples + args.test_examples
    ids, values = listops.make(10 * -(-count // 10), args.length)
    train, test = slice(args.examples), slice(args.examples, count)
    parts = (ids[train], values[train]), (ids[test], values[test])
    return Task(*parts, len(listops.TOKENS), mask_ratio=0.15, pooling="cls")


def pixels(args):
    """Digits, twice as large, at random places of 16 x 16 pixels with 17 levels, row by row.

    No picture of the test is another view of one to train on.
    """
    digits, rng = load_digits(), np.random.default_rng(0)
    order = rng.permutation(len(digits.target))
    parts = []
    for count, rows in ((args.examples, order[400:]), (args.test_examples, order[:400])):
        rows = rng.choice(rows, count)
        large = np.kron(digits.images[rows].astype("int32"), np.ones((1, 2, 2), "int32"))
        wide = np.pad(large, ((0, 0), (3, 3), (3, 3)))
        corners = rng.integers(0, 7, (count, 2))
        cut = [x[i : i + 16, j : j + 16] for x, (i, j) in zip(wide, corners, strict=True)]
        parts.append((np.stack(cut).reshape(count, 256) + 1, digits.target[rows].astype("int32")))
    return Task(*parts, 19, mask_ratio=0.5, pooling="mean")


def inputs_of(ids):
    """What the encoder takes."""
    return {"token_ids": ids, "padding_mask": ids > 0}


def batches(count, steps, batch_size, seed):
    """Rows of the data for so many steps: all of them once, then again in another order."""
    rng, rounds = np.random.default_rng(seed), -(-steps * batch_size // count)
    return np.concatenate([rng.permutation(count) for _ in range(rounds)])[: steps * batch_size]


def encoder_of(args, task):
    """A small encoder with rotary positions, that knows nothing."""
    return RoFormerEncoder(
        task.vocabulary_size,
        num_layers=args.layers,
        num_heads=2,
        hidden_dim=args.width,
        intermediate_dim=2 * args.width,
        num_segments=0,
        dropout=0.0,
        attention_dropout=0.0,
        residual="pre",
    )


def optimizer_of(args, steps):
    """Adam, warmed up and then ever slower."""
    return keras.optimizers.Adam(WarmupCosine(args.learning_rate, steps), global_clipnorm=1.0)


def pretrain(args, task, encoder, steps, seed):
    """Trains an encoder on the inputs alone; accuracy at the end, of masked tokens."""
    model = SelfPretrainer(
        encoder, task.vocabulary_size, task.vocabulary_size - 1, task.mask_ratio, seed=seed
    )
    model.compile(optimizer_of(args, steps), jit_compile=args.jit)
    rows = batches(len(task.train[0]), steps, args.batch_size, seed)
    model.fit(inputs_of(task.train[0][rows]), batch_size=args.batch_size, shuffle=False, verbose=0)
    test = inputs_of(task.test[0])
    return model.evaluate(test, batch_size=EVALUATED, return_dict=True, verbose=0)["accuracy"]


def finetune(args, task, encoder, steps, seed):
    """Trains an encoder on the labels; steps and held-out accuracies of the curve."""
    pooled = Pooling(task.pooling)(encoder.output, mask=encoder.input["padding_mask"])
    model = keras.Model(encoder.input, keras.layers.Dense(10)(pooled))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer_of(args, steps), loss, metrics=["accuracy"], jit_compile=args.jit)
    rows = batches(len(task.train[0]), steps, args.batch_size, seed)
    ends = np.linspace(0, steps, POINTS + 1).round().astype(int)
    accuracies, test = [], (inputs_of(task.test[0]), task.test[1])
    for start, end in zip(ends, ends[1:], strict=False):
        part = rows[start * args.batch_size : end * args.batch_size]
        train = inputs_of(task.train[0][part]), task.train[1][part]
        model.fit(*train, batch_size=args.batch_size, shuffle=False, verbose=0)
        logs = model.evaluate(*test, batch_size=EVALUATED, return_dict=True, verbose=0)
        accuracies.append(logs["accuracy"])
    return ends[1:], np.array(accuracies)


def verdict(differences):
    """What may be said: an effect above two standard errors of the mean over the seeds, or nothing."""
    mean, count = np.mean(differences), len(differences)
    if count < 2:
        return "one seed has no standard error: no result"
    error = np.std(differences, ddof=1) / count**0.5
    said = f"difference {mean:+.3f}, two standard errors {2 * error:.3f}: "
    if abs(mean) <= 2 * error:
        return said + "null result"
    return said + f"self-pretraining is {'better' if mean > 0 else 'worse'}"


def draw(curves, chance, path):
    """The held-out accuracy over all steps, thin for the seeds, thick for their mean."""
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for (name, runs), color in zip(curves.items(), ("tab:gray", "tab:blue"), strict=True):
        for steps, accuracies in runs:
            axes.plot(steps, accuracies, color=color, linewidth=0.7, alpha=0.6)
        mean = np.mean([accuracies for _, accuracies in runs], axis=0)
        axes.plot(runs[0][0], mean, color=color, linewidth=2.5, label=name)
    axes.axhline(chance, color="black", linestyle=":", label="most frequent class")
    axes.set(xlabel="steps in all", ylabel="held-out accuracy")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main():
    """Trains, prints and draws."""
    args = arguments()
    args.output.mkdir(parents=True, exist_ok=True)
    task = {"listops": nested_operations, "pixels": pixels}[args.task](args)
    before = min(max(round(args.pretrain_share * args.steps), 1), args.steps - POINTS)
    chance = np.bincount(task.test[1]).max() / len(task.test[1])
    print(
        f"{args.task}: {len(task.train[0])} sequences of {task.train[0].shape[1]} tokens, "
        f"{args.steps} steps in all, of them {before} of self-pretraining; the most frequent class "
        f"{chance:.3f}"
    )
    print("seed  from scratch  self-pretrained  masked tokens guessed   time")
    curves, differences = {"from scratch": [], "self-pretrained": []}, []
    for seed in range(args.seeds):
        start = time.perf_counter()
        keras.utils.set_random_seed(seed)
        scratch = finetune(args, task, encoder_of(args, task), args.steps, seed)
        keras.utils.set_random_seed(seed)  # the same beginning
        encoder = encoder_of(args, task)
        guessed = pretrain(args, task, encoder, before, seed)
        steps, accuracies = finetune(args, task, encoder, args.steps - before, seed)
        curves["from scratch"].append(scratch)
        curves["self-pretrained"].append((steps + before, accuracies))
        ends = scratch[1][-1], accuracies[-1]
        differences.append(ends[1] - ends[0])
        taken = time.perf_counter() - start
        print(
            f"{seed:4d}  {ends[0]:12.3f}  {ends[1]:15.3f}  {guessed:21.3f}  {taken:4.0f} s",
            flush=True,
        )
    means = [np.mean([accuracies[-1] for _, accuracies in runs]) for runs in curves.values()]
    print(f"mean  {means[0]:12.3f}  {means[1]:15.3f}")
    print(verdict(differences))
    path = args.output / f"long_range_{args.task}.png"
    draw(curves, chance, path)
    print(f"curves: {path}")


if __name__ == "__main__":
    main()
