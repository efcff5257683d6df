"""How large is the output of a gated attention unit beside its input, before any training?

RMS(GAU(x)) / RMS(x) for standard normal x, with four initialisations of the kernels, the two
normalizations and both scales of the scores. Then the same with a token that sees only itself, and
only the others: what makes the output as large as it is.
Run: python benchmarks/gau_initial_ratio.py
"""

import argparse
import statistics

import keras
import numpy as np
from timing import print_table

from keras_ext.layers import GatedAttentionUnit

SIDES = {
    "squared_relu": {},
    "softmax_plus": {"normalization": "softmax_plus"},
    "paper's 1 / n^2": {"score_scale": "paper"},
}


def normal(rng, rows, columns, deviation):
    """A kernel of normal numbers."""
    return rng.normal(0.0, deviation, (rows, columns)).astype("float32")


def kernels(name, rng, width, units, key_size):
    """The kernels of the input and of the output projection, as one initialisation draws them."""
    columns = (units, units, key_size)
    fans = {
        "LeCun": [(width, width)] * 3,  # 2 / (2 width)
        "Xavier, three kernels": [(width, size) for size in columns],
        "Xavier, one kernel": [(width, sum(columns))] * 3,
    }
    if name == "normal, 0.02":
        first = normal(rng, width, sum(columns), 0.02)
        return first, normal(rng, units, width, 0.02)
    parts = [
        normal(rng, width, size, (2 / sum(fan)) ** 0.5)
        for size, fan in zip(columns, fans[name], strict=True)
    ]
    output = (1 / units if name == "LeCun" else 2 / (units + width)) ** 0.5
    return np.concatenate(parts, axis=1), normal(rng, units, width, output)


INITIALISATIONS = ["LeCun", "Xavier, three kernels", "Xavier, one kernel", "normal, 0.02"]


def ratio(name, length, sizes, seed, mask=None, **options):
    """RMS(GAU(x)) / RMS(x) of one draw.

    Args:
        name: of the initialisation.
        length: int, tokens.
        sizes: width, units and key_size.
        seed: int, of weights and inputs.
        mask: (1, n, n) bool, what each token sees, or None.
        **options: arguments of the layer.
    """
    rng = np.random.default_rng(seed)
    width, units, key_size = sizes
    layer = GatedAttentionUnit(units, key_size, use_bias=False, **options)
    layer.build((None, length, width))
    first, last = kernels(name, rng, *sizes)
    layer.input_dense.kernel.assign(first)
    layer.output_dense.kernel.assign(last)
    x = rng.normal(size=(1, length, width)).astype("float32")
    output = keras.ops.convert_to_numpy(layer(x, attention_mask=mask))
    return float(np.sqrt(np.mean(output**2) / np.mean(x**2)))


def median(seeds, *arguments, **options):
    """The median ratio of so many draws, as text."""
    draws = [ratio(*arguments, seed, **options) for seed in range(seeds)]
    return f"{statistics.median(draws):.1e}"


def main(words=None):
    """Prints both tables.

    Args:
        words: list of arguments; None: those of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--units", type=int, default=1536)
    parser.add_argument("--key-size", type=int, default=128)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args(words)
    sizes = (arguments.width, arguments.units, arguments.key_size)
    columns = [(side, n) for side in SIDES for n in arguments.lengths]
    rows = [
        [name, *(median(arguments.seeds, name, n, sizes, **SIDES[side]) for side, n in columns)]
        for name in INITIALISATIONS
    ]
    title = "RMS(GAU(x)) / RMS(x), width {}, units {}, key_size {}".format(*sizes)
    print_table(title, ["kernels", *(f"{side}, n={n}" for side, n in columns)], rows)

    rows = []
    for name in INITIALISATIONS:
        for n in arguments.lengths:
            itself = np.eye(n, dtype=bool)[None]
            masks = (None, itself, ~itself)
            # All three divided by n, so that they are parts of one sum.
            cells = [
                median(arguments.seeds, name, n, sizes, mask=mask, length_norm=n) for mask in masks
            ]
            rows.append([name, n, *cells])
    headers = ["kernels", "n", "a token sees all", "itself", "the others"]
    print_table("Where it comes from: squared_relu", headers, rows)


if __name__ == "__main__":
    main()
