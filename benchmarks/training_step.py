"""How much do head, loss and labels add to a training step of the encoder?

An encoder of MiniLM's sizes, alone and under three heads. Every step builds its batch on the host
(`data.collate`) and updates all weights with AdamW.
"""

import argparse

import keras
import numpy as np
from memory import peak_memory
from timing import BACKEND, median_times, print_table

from keras_ext.data import Window, collate
from keras_ext.layers import EfficientGlobalPointer, GlobalPointer
from keras_ext.losses import FactoredGlobalPointerCrossentropy, GlobalPointerCrossentropy
from keras_ext.models import BertEncoder

SIZES = {"num_layers": 6, "num_heads": 12, "hidden_dim": 384, "intermediate_dim": 1536}
VOCABULARY = 30522
HEAD_SIZE = 64
# For each side the head and its loss.
SIDES = {
    "encoder alone": None,
    "factored": lambda types: (
        EfficientGlobalPointer(types, HEAD_SIZE, factored=True),
        FactoredGlobalPointerCrossentropy(types, HEAD_SIZE),
    ),
    "EfficientGlobalPointer, dense": lambda types: (
        EfficientGlobalPointer(types, HEAD_SIZE),
        GlobalPointerCrossentropy(),
    ),
    "GlobalPointer, dense": lambda types: (
        GlobalPointer(types, HEAD_SIZE),
        GlobalPointerCrossentropy(),
    ),
}


def mean_square(y_true, y_pred):
    """A loss that needs no head and no labels."""
    return keras.ops.mean(keras.ops.square(y_pred), axis=(1, 2))


def random_windows(batch, length, types, count, seed=0):
    """Windows of half to all of the length, and `count` random spans in each."""
    rng = np.random.default_rng(seed)
    windows, spans = [], []
    for tokens in rng.integers(length // 2, length + 1, batch):
        ids = rng.integers(1, VOCABULARY, tokens).astype("int32")
        windows.append(Window(0, 0, ids, np.zeros((tokens, 2), "int32")))
        borders = np.sort(rng.integers(0, tokens, (count, 2)))
        spans.append(np.column_stack([rng.integers(0, types, count), borders]).astype("int32"))
    return windows, spans


def batch_maker(side, batch, length, types, count):
    """The host's part: a function that returns the inputs and labels of one batch."""
    windows, spans = random_windows(batch, length, types, count)
    with_labels = SIDES[side] is not None

    def make():
        inputs, labels, _ = collate(
            windows, spans if with_labels else None, range(batch), batch, length, count, pad_id=0
        )
        return inputs, labels if with_labels else np.zeros((batch, 1), "float32")

    return make


def training_step(side, jit_compile, *shape):
    """A function that makes a batch, trains on it and returns the loss."""
    encoder = BertEncoder(VOCABULARY, dropout=0.1, attention_dropout=0.1, **SIZES)
    model, loss = encoder, mean_square
    if SIDES[side] is not None:
        head, loss = SIDES[side](shape[2])
        scores = head(encoder.output, mask=encoder.input["padding_mask"])
        model = keras.Model(encoder.input, scores)
    model.compile(keras.optimizers.AdamW(1e-5), loss, jit_compile=jit_compile)
    make = batch_maker(side, *shape)
    return lambda: model.train_on_batch(*make())


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--types", type=int, default=10)
    parser.add_argument("--spans", type=int, default=16, help="spans in each sample")
    arguments = parser.parse_args()
    repeats = arguments.repeats
    shape = (arguments.batch, arguments.length, arguments.types, arguments.spans)
    rows = []
    for mode, jit_compile in ([] if BACKEND == "jax" else [("graph", False)]) + [("XLA", True)]:
        steps = {side: training_step(side, jit_compile, *shape) for side in SIDES}
        times = median_times(steps, repeats)
        del steps
        for side, seconds in times.items():
            added = seconds / times["encoder alone"] - 1
            memory = peak_memory(training_step, side, jit_compile, *shape)
            rows.append([side, mode, f"{seconds * 1e3:.0f}", f"{added:+.1%}", f"{memory:.0f}"])
    makers = {side: batch_maker(side, *shape) for side in list(SIDES)[:2]}
    host = median_times(makers, repeats)
    title = "Training step of MiniLM's sizes, b={}, n={}, {} types, k={}".format(*shape)
    print_table(title, ["side", "run as", "ms", "added", "MB"], rows, repeats)
    without, with_labels = (seconds * 1e3 for seconds in host.values())
    print(f"Of that on the host: a batch {without:.2f} ms, with span labels {with_labels:.2f} ms.")


if __name__ == "__main__":
    main()
