"""Gated attention units: trained without a warm-up, tested on text longer than ever seen.

    python examples/gau_long.py

trains a small causal `GAUEncoder` to predict the next character in pieces of 64, at the full
learning rate from the first step. Then it reads pieces up to 8 times as long, four times with the
same weights: as trained; with the number of visible tokens that it divides by held at 64; with
distances that grow no more beyond a window (ReRoPE); and with both. It prints the loss at each
distance from the beginning, and draws it beside the curve of the training.

The text is that of the project's English corpus, or that of a file of yours with --text.
"""

import argparse
import json
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_ext.models import GAUEncoder

CORPUS = Path(__file__).parent / "data"


def read(path):
    """The text to train on and the text to test on."""
    if path is None:
        return tuple(
            "\n".join(
                json.loads(line)["text"]
                for line in (CORPUS / f"nested_{part}.jsonl").read_text("utf-8").splitlines()
            )
            for part in ("train", "dev")
        )
    text = path.read_text("utf-8")
    cut = len(text) * 9 // 10
    return text[:cut], text[cut:]


def batch_of(ids, starts, length):
    """Pieces of a text as inputs, and the character that follows each one."""
    places = np.asarray(starts)[:, None] + np.arange(length)
    inputs = {"token_ids": ids[places], "padding_mask": np.ones(places.shape, bool)}
    return inputs, ids[places + 1]


def make(vocabulary_size, arguments, **options):
    """A model that scores the next character."""
    encoder = GAUEncoder(
        vocabulary_size,
        num_layers=arguments.layers,
        hidden_dim=arguments.width,
        key_size=64,
        num_segments=0,
        dropout=0.0,
        attention_dropout=0.0,
        with_mlm="linear",
        application="lm",
        **options,
    )
    return keras.Model(encoder.input, encoder.output["mlm"])


class Losses(keras.callbacks.Callback):
    """The loss of each step; Keras' log is the mean since the beginning."""

    def __init__(self):
        super().__init__()
        self.values, self.sum = [], 0.0

    def on_train_batch_end(self, batch, logs=None):
        total = logs["loss"] * (batch + 1)
        self.values.append(total - self.sum)
        self.sum = total


def train(model, ids, arguments):
    """Trains at a constant rate from the first step; the loss of each step."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(arguments.learning_rate), loss, jit_compile=True)
    rng = np.random.default_rng(0)
    size = arguments.steps * arguments.batch_size
    starts = rng.integers(0, len(ids) - arguments.length, size)
    losses = Losses()
    model.fit(
        *batch_of(ids, starts, arguments.length),
        batch_size=arguments.batch_size,
        shuffle=False,
        verbose=0,
        callbacks=[losses],
    )
    return losses.values


def loss_by_place(model, ids, length, pieces=32):
    """The mean loss at each place of pieces of a text, (length,)."""
    starts = np.linspace(0, len(ids) - length - 1, pieces).astype(int)
    inputs, targets = batch_of(ids, starts, length)
    logits = model.predict(inputs, batch_size=4, verbose=0)
    loss = keras.ops.sparse_categorical_crossentropy(targets, logits, from_logits=True)
    return keras.ops.convert_to_numpy(loss).mean(axis=0)


def smooth(values, over):
    """Means of so many neighbours, and the middle of their places before them."""
    means = np.convolve(values, np.ones(over) / over, mode="valid")
    return np.arange(len(means)) + (over - 1) / 2, means


def draw(losses, places, length, path):
    """The curve of the training, and the loss at each place."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5))
    left.plot(*smooth(losses, 10))
    left.set(xlabel="step", ylabel="loss, nats a character", title="Training, no warm-up")
    for name, values in places.items():
        right.plot(*smooth(values, 32), label=name)
    right.axvline(length, color="gray", linestyle=":", label="longest in training")
    right.set(xlabel="place in the text", title="Test on longer text, the same weights")
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main():
    """Trains, tests, prints and draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, help="a text of your own, UTF-8")
    parser.add_argument("--output", type=Path, default=Path("gau_output"))
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--length", type=int, default=64, help="characters in training")
    parser.add_argument("--test-length", type=int, default=512)
    parser.add_argument("--window", type=int, default=32, help="of ReRoPE")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)

    texts = read(arguments.text)
    ids = {character: i for i, character in enumerate(sorted(set(texts[0])), start=1)}
    train_ids, test_ids = (np.array([ids.get(c, 0) for c in text], "int32") for text in texts)
    needed = arguments.test_length + 1
    if min(len(train_ids), len(test_ids)) <= needed:
        raise SystemExit(
            f"The texts to train and to test on must be longer than {needed} characters. "
            f"Received: {len(train_ids)} and {len(test_ids)}"
        )
    model = make(len(ids) + 1, arguments)
    print(f"{model.count_params():,} weights, {arguments.layers} units, no warm-up")
    losses = train(model, train_ids, arguments)
    print("loss, the mean of the last 5 steps:")
    for step in sorted({1, 10, 50, 100, 200, arguments.steps}):
        if step <= len(losses):
            print(f"step {step:4d}: loss {np.mean(losses[max(step - 5, 0) : step]):.3f}")

    window, held = {"rope_window": arguments.window}, {"length_norm": arguments.length}
    options = {
        "as trained": {},
        f"divided by {arguments.length}": held,
        f"ReRoPE, window {arguments.window}": window,
        "both": {**window, **held},
    }
    places = {}
    for name, option in options.items():
        reader = make(len(ids) + 1, arguments, **option)
        reader.set_weights(model.get_weights())
        places[name] = loss_by_place(reader, test_ids, arguments.test_length)
    ends = [arguments.length]
    while 2 * ends[-1] <= arguments.test_length:
        ends.append(2 * ends[-1])
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    print("\nloss at the places " + "".join(f"{a:5d}-{b:<5d}" for a, b in spans))
    for name, values in places.items():
        cells = (f"{values[a:b].mean():11.3f}" for a, b in spans)
        print(f"{name:19s}" + "".join(cells))
    draw(losses, places, arguments.length, arguments.output / "gau_long.png")
    print(f"\ncurves: {arguments.output / 'gau_long.png'}")


if __name__ == "__main__":
    main()
