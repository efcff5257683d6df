"""What does each mean over the two widths of a kernel do to a deep chain of d -> 4 d -> d?

Blocks `activation(x W_1) W_2` one behind another, without residuals and norms. The variance of W_1
is 1 / M, that of W_2 gain^2 / M, with the gain of the activation; in the last row 1 / fan_in and
gain^2 / fan_in. Printed is by how much a block multiplies the mean square, forward that of the
values, backward that of the gradients: the geometric mean over all blocks, 1 if sizes stay. The
second column is what the widths alone say, d 4 d / M^2.
Run: python benchmarks/initialization.py
"""

import argparse
import math
import statistics

import keras
import numpy as np
from timing import print_table, to_numpy, value_and_gradient

from keras_ext import initializers

# Mean -> d 4 d / M^2.
MEANS = {
    "arithmetic": 4 / 2.5**2,
    "geometric": 1.0,
    "harmonic": 4 / 1.6**2,
    "quadratic": 4 / 8.5,
    "contraharmonic": 4 / 3.4**2,
    "fan_in": 1.0,
}
ACTIVATIONS = ("linear", "relu", "gelu")


def pair(mean, activation, generator):
    """Those of the two kernels of a block."""
    if mean == "fan_in":
        first = keras.initializers.LecunNormal(seed=generator)
        return first, initializers.ActivationScaling(activation, seed=generator)
    first = initializers.MeanVarianceScaling(mean=mean, seed=generator)
    scale = initializers.activation_gain(activation) ** 2
    return first, initializers.MeanVarianceScaling(scale, mean, seed=generator)


def gains(mean, activation, width, blocks, rows, seed):
    """The gains of one chain.

    Returns:
        Forward and backward: the factor of the mean square a block.
    """
    first, second = pair(mean, activation, keras.random.SeedGenerator(seed))
    shapes = (width, 4 * width), (4 * width, width)
    kernels = [(first(shapes[0]), second(shapes[1])) for _ in range(blocks)]
    function = keras.activations.get(activation)

    def chain(x):
        for up, down in kernels:
            x = keras.ops.matmul(function(keras.ops.matmul(x, up)), down)
        return x

    x = np.random.default_rng(seed).normal(size=(rows, width)).astype("float32")
    # The gradient of the output's sum: it begins as ones, of mean square 1.
    output, gradient = to_numpy(value_and_gradient(chain)(keras.ops.convert_to_tensor(x)))
    forward = np.mean(np.square(output, dtype="float64")) / np.mean(x**2)
    backward = np.mean(np.square(gradient, dtype="float64"))
    return forward ** (1 / blocks), backward ** (1 / blocks)


def cell(values):
    """The geometric mean, and from what to what."""
    middle = math.exp(statistics.mean(map(math.log, values)))
    return f"{middle:.3f} ({min(values):.3f} to {max(values):.3f})"


def main(words=None):
    """Prints the table.

    Args:
        words: list of arguments; None: those of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=50)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    arguments = parser.parse_args(words)
    sizes = {name: getattr(arguments, name) for name in ("width", "blocks", "rows")}
    rows = []
    for mean, by_the_widths in MEANS.items():
        row = [mean, f"{by_the_widths:.3f}"]
        for activation in ACTIVATIONS:
            every = [gains(mean, activation, seed=seed, **sizes) for seed in arguments.seeds]
            row += [cell(values) for values in zip(*every, strict=True)]
        rows.append(row)
    headers = ["mean", "by the widths"]
    headers += [f"{name}, {way}" for name in ACTIVATIONS for way in ("forward", "backward")]
    title = f"Gain of the mean square a block, {arguments.blocks} blocks "
    title += f"{arguments.width} -> {4 * arguments.width} -> {arguments.width}, "
    print_table(f"{title}{len(arguments.seeds)} seeds: mean (range)", headers, rows)


if __name__ == "__main__":
    main()
