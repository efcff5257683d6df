"""What helps a model on sequences longer than any in its training?

Trained on strings of 2 to 20 symbols out of five, tested on 20 to 120. Two tasks:

    sort    write the symbols in order; every symbol counts, wherever it stands
    copy    write the symbol three places to the left; only neighbours count

Bidirectional encoder, rotary positions, norms before the layers. Arms differ in training by the
positions (0, 1, 2, ... or random) and the scale of attention, at the test by the scale and by a
local mask of 20 places. Beside them what a guess from the relative place alone would score.
Runs are kept in a file: an interrupted series goes on where it was.
Run: python benchmarks/length.py
"""

import argparse

import keras
import numpy as np
from optimizer_quality import Runs, mean_and_spread
from timing import print_table

from keras_ext.layers import (
    FeedForward,
    LocalAttentionMask,
    MultiHeadSelfAttention,
    PaddingMask,
    RandomPositions,
)
from keras_ext.ops import LogN

SYMBOLS = 5
TRAIN_LENGTH = 20
OFFSET = 3  # of the task "copy"
# Changes at the test -> scale of attention and window there; "": as in training.
TESTS = {"": (None, None), "log-n": ("log_n", None), "local": (None, TRAIN_LENGTH)}


def strings(rng, count, shortest, longest, width, uneven=False):
    """Random strings of the symbols 1 to 5.

    Args:
        rng: NumPy generator.
        count: int, strings.
        shortest: int, of their lengths.
        longest: int, of their lengths.
        width: int, columns; shorter strings are padded with 0.
        uneven: bool, whether each string has frequencies of its own, uniform among all.

    Returns:
        int32 array (count, width).
    """
    lengths = rng.integers(shortest, longest + 1, (count, 1))
    shares = rng.dirichlet(np.ones(SYMBOLS), count) if uneven else np.full((1, SYMBOLS), 0.2)
    bounds = np.cumsum(shares, axis=1)[:, None, :-1]
    symbols = 1 + (rng.random((count, width, 1)) > bounds).sum(axis=-1)
    return np.where(np.arange(width) < lengths, symbols, 0).astype("int32")


def solve(task, ids):
    """What is to be written at each place, 0 where nothing is.

    Args:
        task: "sort", "sort-uneven" or "copy".
        ids: int (b, n), 0 is padding.

    Returns:
        int array (b, n).
    """
    if task == "copy":
        before = np.pad(ids, ((0, 0), (OFFSET, 0)))[:, : ids.shape[1]]
        return np.where(ids > 0, before, 0)
    # Padding last: it is behind all symbols.
    ordered = np.sort(np.where(ids > 0, ids, SYMBOLS + 1), axis=1)
    return np.where(ids > 0, ordered, 0)


def length_model(positions, max_position, scale=None, window=None, width=64, heads=4, layers=2):
    """The encoder; its weights do not depend on positions, scale and window.

    Args:
        positions: "plain" or "random".
        max_position: int, for random positions.
        scale: "log_n" or None.
        window: int, places that a token sees on each side, or None: all.
        width: int, channels.
        heads: int.
        layers: int, blocks.

    Returns:
        `keras.Model`, ids (b, n) to logits (b, n, 6).
    """
    ids = keras.Input((None,), dtype="int32")
    visible = {"mask": PaddingMask()(ids)}
    if window:
        visible["attention_mask"] = LocalAttentionMask(window)(ids)
    if positions == "random":
        visible["positions"] = RandomPositions(max_position=max_position, seed=0)(ids)
    options = {"attention_scale": LogN(TRAIN_LENGTH, min_length=2)} if scale else {}
    x = keras.layers.Embedding(SYMBOLS + 1, width)(ids)
    for _ in range(layers):
        attention = MultiHeadSelfAttention(heads, width // heads, rope=True, **options)
        x = x + attention(keras.layers.LayerNormalization()(x), **visible)
        x = x + FeedForward(4 * width)(keras.layers.LayerNormalization()(x))
    x = keras.layers.LayerNormalization()(x)
    return keras.Model(ids, keras.layers.Dense(SYMBOLS + 1)(x))


def accuracies(task, positions, scale, seed, steps, batch_size, max_position, lengths, count):
    """Trains one model, and tests it as it is and with each change of `TESTS`.

    Returns:
        Dict of the change -> list of the share of right symbols at each length.
    """
    keras.utils.set_random_seed(seed)
    model = length_model(positions, max_position, scale)
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )
    uneven = task == "sort-uneven"
    rng = np.random.default_rng(seed)
    ids = strings(rng, steps * batch_size, 2, TRAIN_LENGTH, TRAIN_LENGTH, uneven)
    targets = solve(task, ids)
    weights = (targets > 0).astype("float32")
    model.fit(ids, targets, batch_size, sample_weight=weights, shuffle=False, verbose=0)
    result = {}
    for change, (other_scale, window) in TESTS.items():
        tested = length_model(positions, max_position, other_scale or scale, window)
        tested.set_weights(model.get_weights())
        # XLA would compile for each length, for a few batches.
        tested.compile(jit_compile=False)
        result[change] = [
            right_share(tested, task, test_strings(count, length, uneven), batch_size)
            for length in lengths
        ]
    return result


def test_strings(count, length, uneven):
    """The strings of one length, the same for all models."""
    return strings(np.random.default_rng(10**6 + length), count, length, length, length, uneven)


def right_share(model, task, ids, batch_size):
    """The share of right symbols among those to be written."""
    targets = solve(task, ids)
    written = model.predict(ids, batch_size=batch_size, verbose=0).argmax(axis=-1)
    return float((written == targets)[targets > 0].mean())


def guess_share(task, ids):
    """The share of right symbols if i of n always gets the commonest answer at that place."""
    targets = solve(task, ids)
    counts = [(targets == symbol).sum(axis=0) for symbol in range(1, SYMBOLS + 1)]
    return float(np.max(counts, axis=0).sum() / (targets > 0).sum())


def rows_of(task, arguments, runs):
    """The rows of the table of one task."""
    settings = ("steps", "batch_size", "max_position", "lengths", "count")
    settings = {name: getattr(arguments, name) for name in settings}
    tests = [test_strings(arguments.count, n, task == "sort-uneven") for n in arguments.lengths]
    guess = [f"{guess_share(task, ids):.4f}" for ids in tests]
    rows = [["", "guess from the place", "", *guess]]
    scores = {}
    for seed in arguments.seeds:
        for positions, scale in arguments.arms:
            run = {"task": task, "positions": positions, "scale": scale, "seed": seed}
            scores[positions, scale, seed] = runs.score(accuracies, **run, **settings)
    for positions, scale in arguments.arms:
        for change in TESTS:
            if scale and change == "log-n":
                continue  # that is how it was trained
            every = [scores[positions, scale, seed][change] for seed in arguments.seeds]
            cells = map(mean_and_spread, zip(*every, strict=True))
            training = f"{positions}, log-n" if scale else positions
            rows.append([task, training, change or "as trained", *cells])
    return rows


def arm(word):
    """The positions and the scale that a word of the command line names."""
    positions, _, scale = word.partition("+")
    if positions not in ("plain", "random") or scale not in ("", "log_n"):
        raise argparse.ArgumentTypeError(
            f"Expected plain or random, then +log_n or nothing: {word}"
        )
    return positions, scale or None


def main(words=None):
    """Trains what is not there yet, and prints.

    Args:
        words: list of arguments; None: those of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default="build/length.jsonl", help="file of runs")
    tasks = ["sort", "sort-uneven", "copy"]
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=tasks)
    arms = [("plain", None), ("random", None), ("plain", "log_n"), ("random", "log_n")]
    parser.add_argument("--arms", nargs="+", type=arm, default=arms, help="plain random+log_n ...")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--lengths", type=int, nargs="+", default=[20, 40, 80, 120])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-position", type=int, default=256)
    parser.add_argument("--count", type=int, default=512, help="strings a length in the test")
    arguments = parser.parse_args(words)
    runs = Runs(arguments.results)
    headers = ["task", "training", "at the test", *(f"n={n}" for n in arguments.lengths)]
    for task in arguments.tasks:
        title = f"Right symbols of `{task}` after training on up to {TRAIN_LENGTH}, "
        title += f"{len(arguments.seeds)} seeds"
        print_table(title, headers, rows_of(task, arguments, runs))


if __name__ == "__main__":
    main()
