"""How sharp is attention when there are more keys, and where is its gradient largest?

    entropy    of the weights of sharp scores (standard deviation 3 after the division by sqrt(d)),
               with the scale "sqrt_dim" and with "log_n": does it stay when the keys grow?
    gradient   the mean over rows of a (1 - sum of p^2), half the sum of the absolute derivatives
               dp_j / ds_j of p = softmax(a s), s standard normal: is it largest at the a of
               "grad_max", where the bound a (1 - exp(a^2) / n) is?

Run: python benchmarks/attention_entropy.py
"""

import argparse
import math

import keras
import numpy as np
from timing import print_table, to_numpy

from keras_ext.ops import GradMax, LogN

SIZE = 64  # channels of a query and a key
GAIN = 3.0  # standard deviation of the scores with the usual scale


def weights_of(scores):
    """The softmax of rows, in float64: the sums of small weights are what is asked for."""
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def mean_entropy(keys, scale, rows, seed):
    """The entropy of the weights of queries and keys of that many channels, in nats.

    Args:
        keys: int, number of keys.
        scale: float, factor of the scores.
        rows: int, queries.
        seed: int.

    Returns:
        The mean over the queries.
    """
    rng = np.random.default_rng(seed)
    query, key = rng.normal(size=(rows, SIZE)) * GAIN, rng.normal(size=(keys, SIZE))
    weights = weights_of(query @ key.T * scale)
    return -np.sum(weights * np.log(np.maximum(weights, 1e-300)), axis=-1).mean()


def gradient_sizes(keys, factors, rows, seed):
    """The mean of a (1 - sum p^2) for every a, and the a that is best for each row.

    Args:
        keys: int, number of scores in a row.
        factors: floats, the values of a, in order.
        rows: int.
        seed: int.

    Returns:
        Array of means, and array (rows,) of the best factors.
    """
    scores = np.random.default_rng(seed).normal(size=(rows, keys))
    sizes = [a * (1 - np.sum(weights_of(a * scores) ** 2, axis=-1)) for a in factors]
    sizes = np.stack(sizes)  # (factors, rows)
    return sizes.mean(axis=1), np.asarray(factors)[sizes.argmax(axis=0)]


def bound(a, keys):
    """What the expectation of the sums in place of the sums makes of it."""
    return a * (1 - math.exp(a * a) / keys)


def scaled(scale, keys):
    """The scale of an object of the package, as a number."""
    return float(to_numpy(keras.ops.convert_to_tensor(scale(float(keys), SIZE))))


def main(words=None):
    """Prints both tables.

    Args:
        words: list of arguments; None: those of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    lengths = [64, 128, 256, 512, 1024, 2048, 4096]
    parser.add_argument("--lengths", type=int, nargs="+", default=lengths)
    parser.add_argument("--train-length", type=int, default=512)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(words)
    log_n = LogN(arguments.train_length)
    rows = []
    for keys in arguments.lengths:
        scales = SIZE**-0.5, scaled(log_n, keys)
        cells = [mean_entropy(keys, scale, arguments.rows, arguments.seed) for scale in scales]
        rows.append([keys, f"{math.log(keys):.2f}", *(f"{cell:.2f}" for cell in cells)])
    title = f"Entropy in nats, scores of deviation {GAIN:g}, `log_n` of {arguments.train_length}"
    print_table(title, ["keys", "largest, log n", "sqrt_dim", "log_n"], rows)

    rows, factors = [], [*np.arange(0.25, 16, 0.25), *range(16, 51, 2)]
    for keys in arguments.lengths:
        best = scaled(GradMax(), keys) * math.sqrt(SIZE)
        around = [0.5 * best, best, 2 * best, 4 * best, 50.0]
        means, _ = gradient_sizes(keys, around, arguments.rows, arguments.seed)
        _, by_row = gradient_sizes(keys, factors, arguments.rows, arguments.seed)
        quartiles = np.percentile(by_row, [25, 50, 75])
        cells = [f"{best:.3f}", f"{bound(best, keys):.2f}", *(f"{mean:.2f}" for mean in means)]
        rows.append([keys, *cells, "{1:g} ({0:g} to {2:g})".format(*quartiles)])
    measured = ["0.5 a", "a", "2 a", "4 a", "50"]
    headers = ["keys", "a of grad_max", "bound there", *(f"mean at {at}" for at in measured)]
    headers += ["best of each row: median (quartiles)"]
    print_table("Mean of a (1 - sum p^2), scores standard normal", headers, rows)


if __name__ == "__main__":
    main()
