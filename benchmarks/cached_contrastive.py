"""How much memory does a training step need as the batch grows, plain and by gradient caching?

A small BERT with masked mean pooling, two texts an example. Plain: one call of the encoder a view,
the gradient through all of it. Cached: `CachedContrastiveModel` at a fixed chunk. CoSENT needs
O(batch) beyond the vectors, InfoNCE its batch x batch scores. The script ends with an error where
the two sides differ in the loss or in the weights after a step without dropout.

    python benchmarks/cached_contrastive.py
    python benchmarks/cached_contrastive.py --modes graph XLA --time-batches 64 256
"""

import argparse
import time

import keras
import numpy as np
from memory import peak_memory
from timing import BACKEND, median_times, print_table

from keras_ext.layers import Pooling
from keras_ext.losses import CoSENT, InfoNCE
from keras_ext.models import BertEncoder
from keras_ext.training import CachedContrastiveModel

LOSSES = {
    "CoSENT": lambda: CoSENT(),
    "InfoNCE": lambda: InfoNCE(),
}


class Plain(keras.Model):
    """The encoder on all rows of each view at once: (b, m, d)."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def build(self, input_shape):
        pass

    def call(self, views, training=None):
        vectors = [self.encoder(view, training=training) for view in views]
        return keras.ops.stack(vectors, axis=1)


def make_model(side, loss, mode, sizes, dropout=0.1):
    """A compiled model, the same weights whatever the side.

    Args:
        side: "plain" or "cached".
        loss: name in `LOSSES`.
        mode: "graph" or "XLA".
        sizes: dict of `chunk`, `length`, `layers` and `width`.
        dropout: float.
    """
    keras.utils.set_random_seed(0)
    width = sizes["width"]
    bert = BertEncoder(
        vocabulary_size=1000,
        num_layers=sizes["layers"],
        num_heads=4,
        hidden_dim=width,
        intermediate_dim=4 * width,
        dropout=dropout,
        attention_dropout=dropout,
    )
    vectors = Pooling("mean")(bert.output, mask=bert.input["padding_mask"])
    encoder = keras.Model(bert.input, vectors)
    plain = side == "plain"
    model = Plain(encoder) if plain else CachedContrastiveModel(encoder, sizes["chunk"])
    model.compile(keras.optimizers.SGD(0.01), LOSSES[loss](), jit_compile=mode == "XLA")
    return model


def make_batch(batch, length, loss):
    """Views of random tokens, and labels: graded ones, or for InfoNCE no groups."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 1000, (2, batch, length)).astype("int32")
    ids[:, ::3, length // 2 :] = 0  # a third of the texts is short
    views = [{"token_ids": x, "segment_ids": 0 * x, "padding_mask": x > 0} for x in ids]
    labels = rng.integers(0, 6, batch) if loss == "CoSENT" else np.full(batch, -1)
    return views, labels.astype("float32")


def prepare(side, loss, mode, batch, sizes):
    """A function that makes a training step."""
    model = make_model(side, loss, mode, sizes)
    views, labels = make_batch(batch, sizes["length"], loss)
    return lambda: model.train_on_batch(views, labels)


def check_equal(loss, sizes):
    """Raises if the two sides differ in a step on a batch whose last chunk is not full."""
    views, labels = make_batch(2 * sizes["chunk"] + 1, sizes["length"], loss)
    losses, weights = [], []
    for side in ("plain", "cached"):
        model = make_model(side, loss, "graph", sizes, dropout=0.0)
        losses.append(model.train_on_batch(views, labels))
        weights.append(model.get_weights())
    np.testing.assert_allclose(*losses, rtol=1e-4)
    for plain, cached in zip(*weights, strict=True):
        np.testing.assert_allclose(cached, plain, rtol=1e-4, atol=1e-5)


def main():
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--time-batches", type=int, nargs="*", default=[256])
    parser.add_argument("--chunk", type=int, default=32)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--modes", nargs="+", choices=["graph", "XLA"], default=["graph"])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    modes = ["XLA"] if BACKEND == "jax" else options.modes
    sizes = {name: getattr(options, name) for name in ("chunk", "length", "layers", "width")}
    described = ", ".join(f"{name} {value}" for name, value in sizes.items())
    memory, times = [], []
    for loss in options.losses:
        check_equal(loss, sizes)
        for mode in modes:
            for batch in options.batches:
                plain, cached = (
                    peak_memory(prepare, side, loss, mode, batch, sizes)
                    for side in ("plain", "cached")
                )
                ratio = f"{plain / cached:.1f}"
                memory.append([loss, mode, batch, f"{plain:.0f}", f"{cached:.0f}", ratio])
            for batch in options.time_batches:
                sides = {
                    side: prepare(side, loss, mode, batch, sizes) for side in ("plain", "cached")
                }
                seconds = median_times(sides, options.repeats, clock=time.process_time)
                plain, cached = seconds["plain"], seconds["cached"]
                ratio = f"{cached / plain:.2f}"
                times.append([loss, mode, batch, f"{plain:.2f}", f"{cached:.2f}", ratio])
    headers = ["loss", "mode", "batch", "plain MB", "cached MB", "plain / cached"]
    print_table(f"Peak memory of a training step ({described})", headers, memory)
    if times:
        headers = ["loss", "mode", "batch", "plain s", "cached s", "cached / plain"]
        title = f"Processor time of a training step ({described})"
        print_table(title, headers, times, options.repeats)


if __name__ == "__main__":
    main()
