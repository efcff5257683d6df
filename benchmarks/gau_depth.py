"""Do gated attention units train deep and without warm-up, and is it their form or their size?

A causal language model of characters, post-norm, RMS norms without weights, Adam at a constant
rate from the first step. Five arms:

    gau                gated attention units as they begin
    transformer        as many blocks of attention and feed-forward
    transformer half   half as many: as many layers as gau
    transformer small  half, and each layer's output begins as small beside its input as in gau
    gau large          each unit's output begins as large beside its input as in transformer half

If the form decides, "small" changes nothing; if the size does, the last two change places.
Run: python benchmarks/gau_depth.py
"""

import argparse
import json
import os
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from character_model import pieces, read_characters
from timing import print_table

from keras_ext.layers import FeedForward, GatedAttentionUnit, MultiHeadSelfAttention, RMSNorm

ARMS = ("gau", "transformer", "transformer half", "transformer small", "gau large")


def make_layers(arm, blocks, width):
    """The layers of an arm, one after another."""
    if arm.startswith("gau"):
        return [
            GatedAttentionUnit(2 * width, min(128, 2 * width), rope=True, causal=True)
            for _ in range(blocks)
        ]
    pairs = blocks if arm == "transformer" else blocks // 2
    return [
        layer
        for _ in range(pairs)
        for layer in (
            MultiHeadSelfAttention(width // 16, 16, rope=True, causal=True),
            FeedForward(4 * width),
        )
    ]


def initial_ratio(layer, length, width):
    """RMS(layer(x)) / RMS(x) for standard normal x, before training."""
    x = np.random.default_rng(0).normal(size=(2, length, width)).astype("float32")
    output = keras.ops.convert_to_numpy(layer(x))
    return float(np.sqrt(np.mean(output**2) / np.mean(x**2)))


def resize(layers, ratio, length):
    """Gives the output kernels such a size that each layer begins with this ratio."""
    for layer in layers:
        kernel = layer.output_dense.kernel
        factor = ratio / initial_ratio(layer, length, kernel.shape[-1])
        kernel.assign(kernel * factor)


def mean_ratio(layers, length, width):
    """The geometric mean of the initial ratios."""
    return float(np.exp(np.mean([np.log(initial_ratio(x, length, width)) for x in layers])))


def make_model(arm, characters, arguments):
    """The model of an arm and the ratio its layers begin with."""
    width, length, blocks = arguments.width, arguments.length, arguments.blocks
    layers = make_layers(arm, blocks, width)
    for layer in layers:
        layer.build((None, None, width))
    other = {"transformer small": "gau", "gau large": "transformer half"}.get(arm)
    if other:
        model = make_layers(other, blocks, width)
        resize(layers, mean_ratio(model, length, width), length)
    inputs = keras.Input((length,), dtype="int32")
    x = RMSNorm()(keras.layers.Embedding(characters, width)(inputs))
    for layer in layers:
        x = RMSNorm()(x + layer(x))
    model = keras.Model(inputs, keras.layers.Dense(characters)(x))
    return model, mean_ratio(layers, length, width)


class Losses(keras.callbacks.Callback):
    """The loss of each step; Keras' log is the mean since the beginning."""

    def __init__(self):
        super().__init__()
        self.values, self.sum = [], 0.0

    def on_train_batch_end(self, batch, logs=None):
        total = logs["loss"] * (batch + 1)
        self.values.append(total - self.sum)
        self.sum = total


def train(arm, data, arguments):
    """Trains an arm: dict of the losses, the number of weights and the initial ratio."""
    keras.utils.set_random_seed(arguments.seed)
    text, _, characters = data
    model, ratio = make_model(arm, characters, arguments)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(arguments.rate), loss, jit_compile=not arguments.no_xla)
    rng = np.random.default_rng(arguments.seed)
    starts = rng.integers(0, len(text) - arguments.length, arguments.steps * arguments.batch_size)
    losses = Losses()
    model.fit(
        *pieces(text, starts, arguments.length),
        batch_size=arguments.batch_size,
        shuffle=False,
        verbose=0,
        callbacks=[losses],
    )
    return {"losses": losses.values, "weights": model.count_params(), "ratio": ratio}


def unigram_entropy(text):
    """What a model reaches that knows only how frequent the characters are, in nats."""
    shares = np.unique(text, return_counts=True)[1] / len(text)
    return float(-np.sum(shares * np.log(shares)))


def smooth(values, over=10):
    """The mean of each step and those before it, so many in all."""
    sums = np.cumsum([0.0, *values])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - over, 0)
    return (sums[ends] - sums[begins]) / (ends - begins)


def draw(runs, entropy, path):
    """The loss curves in one picture."""
    figure, axes = plt.subplots(figsize=(8, 5))
    for arm, run in runs.items():
        axes.plot(smooth(run["losses"]), label=f"{arm} (begins with {run['ratio']:.1e})")
    axes.axhline(entropy, color="gray", linestyle=":", label="frequencies alone")
    axes.set(xlabel="step", ylabel="loss, nats a character", title="Post-norm, no warm-up")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(words=None):
    """Trains the arms that are not in the file yet, prints and draws.

    Args:
        words: list of arguments; None: those of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--blocks", type=int, default=32)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-xla", action="store_true", help="run as a plain graph")
    parser.add_argument("--folder", type=Path, default=Path("build/gau_depth"), help="of results")
    arguments = parser.parse_args(words)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    settings = {k: v for k, v in vars(arguments).items() if k not in ("arms", "folder")}
    data = read_characters(Path(os.environ.get("KERAS_EXT_DATA", "../shared/data")))
    runs = {}
    for arm in arguments.arms:
        path = arguments.folder / f"{arm.replace(' ', '_')}.json"
        runs[arm] = json.loads(path.read_text()) if path.exists() else {}
        if runs[arm].get("settings") != settings:
            runs[arm] = {"settings": settings, **train(arm, data, arguments)}
            path.write_text(json.dumps(runs[arm]))
            keras.utils.clear_session()
    entropy = unigram_entropy(data[0])
    places = [step for step in (1, 50, 100, 200, 300) if step <= arguments.steps]
    rows = [
        [arm, f"{run['weights']:,}", f"{run['ratio']:.1e}"]
        + [f"{smooth(run['losses'])[step - 1]:.3f}" for step in places]
        for arm, run in runs.items()
    ]
    headers = ["arm", "weights", "initial ratio", *(f"loss, step {step}" for step in places)]
    title = f"{arguments.blocks} blocks, post-norm, no warm-up (frequencies alone: {entropy:.3f})"
    print_table(title, headers, rows)
    draw(runs, entropy, arguments.folder / "gau_depth.png")


if __name__ == "__main__":
    main()
