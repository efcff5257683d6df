"""Does DeepNorm hold what one step changes, whatever the depth, and do very deep stacks train?

Three tables. One step: how much the output of a stack changes by the first step of an optimizer,
for depths from 3 to 192 blocks; norms have no weights and layers no biases unless the row says so,
and the rate is so small that the change is proportional to it. Training: the loss of 200 blocks on
the next character, without a warm-up. Size: 1,000 blocks, built and stepped.

    python benchmarks/deepnorm.py --data folder_of_data_sets
"""

import argparse
import time
from pathlib import Path

import keras
import numpy as np
from character_model import pieces, read_characters
from timing import print_table

from keras_ext.layers import DeepNormResidual, FeedForward, MultiHeadSelfAttention, ScannedBlocks
from keras_ext.ops import deepnorm_constants

# Optimizer -> how it is made, and the row of constants that was derived for it. The gradients are
# small: Adam's usual epsilon would count.
OPTIMIZERS = {
    "SGD": (keras.optimizers.SGD, {}, "sgd"),
    "Adam": (keras.optimizers.Adam, {"epsilon": 1e-12}, "adam"),
}
ONE_STEP = {
    "post-LN": {"residual": "post"},
    "pre-LN": {"residual": "pre"},
    "DeepNorm": {"residual": "own"},
    "DeepNorm, the paper's constants": {"residual": "paper"},
    "DeepNorm, norms with weights": {"residual": "own", "norm_weights": True},
    "DeepNorm, layers with biases": {"residual": "own", "use_bias": True},
}
TRAINING = {
    "post-LN": "post",
    "pre-LN": "pre",
    "DeepNorm, constants of Adam": "adam",
    "DeepNorm, the paper's constants": "paper",
}


class Block(keras.layers.Layer):
    """Attention of one head and a feed-forward of four times the width, each in a residual."""

    def __init__(
        self, width, pre, alpha, beta, norm_weights=False, use_bias=False, causal=False, **kwargs
    ):
        super().__init__(**kwargs)
        self.arguments = dict(
            width=width,
            pre=pre,
            alpha=alpha,
            beta=beta,
            norm_weights=norm_weights,
            use_bias=use_bias,
            causal=causal,
        )
        self.pre = pre
        small = keras.initializers.VarianceScaling(beta**2, "fan_avg")
        self.parts = [
            MultiHeadSelfAttention(
                1,
                width,
                use_bias=use_bias,
                causal=causal,
                kernel_initializer=keras.initializers.VarianceScaling(1.0, "fan_avg"),
                value_initializer=small,
                name="attention",
            ),
            FeedForward(4 * width, "relu", use_bias, small, name="feed_forward"),
        ]
        self.norms = [normalization(norm_weights, pre, alpha) for _ in self.parts]

    def build(self, input_shape):
        for part, norm in zip(self.parts, self.norms, strict=True):
            part.build(input_shape)
            norm.build(input_shape if self.pre else [input_shape, input_shape])

    def call(self, inputs):
        x = inputs
        for part, norm in zip(self.parts, self.norms, strict=True):
            x = x + part(norm(x)) if self.pre else norm([x, part(x)])
        return x

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), **self.arguments}


def normalization(weights, pre, alpha=1.0):
    """A layer norm, or one of the sum of a residual and its branch."""
    if pre:
        return keras.layers.LayerNormalization(epsilon=1e-5, center=weights, scale=weights)
    return DeepNormResidual(alpha, scale=weights, offset=weights)


def stack(depth, width, residual, **arguments):
    """A function of (b, n, width): so many blocks.

    Args:
        depth: int, number of blocks.
        width: int.
        residual: "post", "pre", or the optimizer of `deepnorm_constants`.
        **arguments: of `Block`.
    """
    pre, alpha, beta = residual == "pre", 1.0, 1.0
    if residual not in ("post", "pre"):
        alpha, beta = deepnorm_constants(depth, optimizer=residual)
    scanned = ScannedBlocks(Block(width, pre, alpha, beta, **arguments), depth)
    if not pre:
        return scanned
    last = normalization(arguments.get("norm_weights", False), pre)
    return lambda x: last(scanned(x))


def change_by_one_step(depth, optimizer, arguments, residual, **block):
    """The root mean square by which the first step changes the output."""
    make, others, own = OPTIMIZERS[optimizer]
    keras.utils.set_random_seed(arguments.seed)
    inputs = keras.Input((arguments.length, arguments.width))
    residual = own if residual == "own" else residual
    model = keras.Model(inputs, stack(depth, arguments.width, residual, **block)(inputs))
    rate = {"SGD": arguments.sgd_rate, "Adam": arguments.adam_rate}[optimizer]
    model.compile(make(rate, **others), "mse", jit_compile=False)
    rng = np.random.default_rng(arguments.seed)
    shape = (arguments.batch, arguments.length, arguments.width)
    x, target = (rng.normal(size=shape).astype("float32") for _ in range(2))
    before = model.predict_on_batch(x)
    model.train_on_batch(x, target)
    change = model.predict_on_batch(x) - before
    return float(np.sqrt(np.mean(change.astype("float64") ** 2)))


def one_step(arguments):
    """Prints the change by one step against the depth."""
    depths = arguments.depths
    for optimizer in OPTIMIZERS:
        rows = []
        for name, row in ONE_STEP.items():
            changes = [change_by_one_step(depth, optimizer, arguments, **row) for depth in depths]
            ratio = max(changes) / min(changes)
            rows.append([name, *(f"{change:.2e}" for change in changes), f"{ratio:.1f}"])
        rate = {"SGD": arguments.sgd_rate, "Adam": arguments.adam_rate}[optimizer]
        title = f"Change of the output by one step of {optimizer}, rate {rate:g}"
        headers = ["residual", *(f"{depth} blocks" for depth in depths), "largest / smallest"]
        print_table(title, headers, rows)


def character_stack(depth, residual, characters, arguments):
    """A compiled model of the next character."""
    keras.utils.set_random_seed(arguments.seed)
    inputs = keras.Input((arguments.length,), dtype="int32")
    x = keras.layers.Embedding(characters, arguments.width)(inputs)
    x = keras.layers.LayerNormalization()(x)
    blocks = stack(depth, arguments.width, residual, norm_weights=True, use_bias=True, causal=True)
    model = keras.Model(inputs, keras.layers.Dense(characters)(blocks(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(arguments.rate), loss, jit_compile=True)
    return model


def batches(text, steps, arguments):
    """Pieces of the text and what follows each character, one pair a step."""
    rng = np.random.default_rng(arguments.seed)
    for _ in range(steps):
        starts = rng.integers(0, len(text) - arguments.length - 1, arguments.batch)
        yield pieces(text, starts, arguments.length)


def training(text, characters, arguments):
    """Prints losses in the course of training."""
    counts = np.bincount(text)
    shares = counts[counts > 0] / len(text)
    marks = [step for step in arguments.marks if step <= arguments.steps]
    rows = []
    for name, residual in TRAINING.items():
        model = character_stack(arguments.deep, residual, characters, arguments)
        steps = batches(text, arguments.steps, arguments)
        losses = [float(model.train_on_batch(*batch)) for batch in steps]
        means = [np.mean(losses[max(0, mark - 10) : max(mark, 1)]) for mark in marks]
        rows.append([name, *(f"{mean:.2f}" for mean in means)])
    print_table(
        f"Loss of {arguments.deep} blocks on the next character, Adam {arguments.rate:g}, "
        "no warm-up",
        ["residual", *(f"step {mark}" for mark in marks)],
        rows,
    )
    print(
        "Means of the ten steps before, at step 0 the first alone. "
        "Frequencies of characters alone give "
        f"{-np.sum(shares * np.log(shares)):.2f}.\n"
    )


def size(text, characters, arguments):
    """Prints what a very deep stack costs."""
    rows = []
    for depth in arguments.sizes:
        start = time.perf_counter()
        model = character_stack(depth, "adam", characters, arguments)
        times = [time.perf_counter() - start]
        for batch in batches(text, 3, arguments):
            start = time.perf_counter()
            loss = float(model.train_on_batch(*batch))
            times.append(time.perf_counter() - start)
        weights = f"{model.count_params() / 1e6:.1f}"
        cells = [f"{seconds:.1f}" for seconds in (times[0], times[1], times[-1])]
        rows.append([depth, weights, *cells, f"{loss:.2f}"])
    headers = ["blocks", "weights, M", "build, s", "first step, s", "third step, s", "its loss"]
    print_table("Stacks of blocks, built and stepped", headers, rows)


def main(words=None):
    """Prints the tables that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parts = ["one_step", "training", "size"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--depths", type=int, nargs="+", default=[3, 12, 48, 192])
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--sgd-rate", type=float, default=1e-3, help="of the one step")
    parser.add_argument("--adam-rate", type=float, default=1e-5, help="of the one step")
    parser.add_argument("--deep", type=int, default=200, help="blocks that are trained")
    parser.add_argument("--rate", type=float, default=1e-3, help="of Adam, in training")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--marks", type=int, nargs="+", default=[0, 50, 100, 200])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(words)
    if arguments.data is None and arguments.parts != ["one_step"]:
        parser.error("Training and size need the folder of the data sets. Received: no --data")
    if "one_step" in arguments.parts:
        one_step(arguments)
    if arguments.data is not None:
        text, _, characters = read_characters(arguments.data)
    if "training" in arguments.parts:
        training(text, characters, arguments)
    if "size" in arguments.parts:
        size(text, characters, arguments)


if __name__ == "__main__":
    main()
