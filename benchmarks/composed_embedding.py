"""What does a vocabulary in a + b + c rows cost a language model of words?

    python composed_embedding.py --data ../shared/data

A GRU reads the sentences of STS-B, ids sorted by frequency, and the table of embeddings gives its
logits, too. Sides: a table of a row an id, the same at the weights of a composed one (narrower),
and `ComposedEmbedding` by its three ways to combine.
"""

import argparse
import collections
import os
import re
from pathlib import Path

import keras
import numpy as np
from character_model import read_sentences
from keras import ops
from timing import median_times, print_table

from keras_ext.layers import ComposedEmbedding


def read_words(data):
    """The words of STS-B's sentences in file order, as ids by frequency; 0 is a word not known.

    Args:
        data: `Path` of the folder of data sets.

    Returns:
        int32 arrays of the training file and of the dev file's sentences that are not in it, and
        the number of ids.
    """
    train = read_sentences(data / "stsbenchmark_en" / "sts-train.csv")
    held_out = read_sentences(data / "stsbenchmark_en" / "sts-dev.csv", set(train))
    train, held_out = (
        re.findall(r"\w+|[^\w ]", "\n".join(sentences).lower()) for sentences in (train, held_out)
    )
    ids = {word: i for i, (word, _) in enumerate(collections.Counter(train).most_common(), 1)}
    encoded = [
        np.array([ids.get(word, 0) for word in words], "int32") for words in (train, held_out)
    ]
    return *encoded, len(ids) + 1


class PlainEmbedding(keras.layers.Embedding):
    """A row an id, with the name that `ComposedEmbedding` has for all of them."""

    def table(self):
        """All embeddings."""
        return self.embeddings


class WordModel(keras.Model):
    """A GRU between a table of embeddings and the same table."""

    def __init__(self, embedding, units=128):
        super().__init__()
        self.embedding = embedding
        self.recurrent = keras.layers.GRU(units, return_sequences=True)
        self.dense = keras.layers.Dense(embedding.output_dim)

    def call(self, ids):
        x = self.dense(self.recurrent(self.embedding(ids)))
        return ops.matmul(x, ops.transpose(self.embedding.table()))


def sides(ids, width):
    """The embeddings that are compared: name -> function that makes one."""
    start = {"embeddings_initializer": keras.initializers.RandomNormal(stddev=width**-0.5)}
    rows = sum(weight.shape[0] for weight in _built(ComposedEmbedding(ids, width)).weights)
    narrow = max(1, round(rows * width / ids))
    return {
        "a row an id": lambda: PlainEmbedding(ids, width, **start),
        f"a row an id, width {narrow}": lambda: PlainEmbedding(ids, narrow, **start),
        **{
            combine: lambda combine=combine: ComposedEmbedding(ids, width, combine, **start)
            for combine in ("add", "multiply", "concat")
        },
    }


def _built(layer):
    layer.build((None,))
    return layer


def batches(words, length, batch):
    """Pieces of a text (steps, batch, length) and the words that follow theirs."""
    count = (len(words) - 1) // (length * batch) * length * batch
    shape = (batch, -1, length)
    return (
        words[start : start + count].reshape(shape).swapaxes(0, 1).reshape(-1, length)
        for start in (0, 1)
    )


def measure(embedding, texts, arguments, seed):
    """Trains a model of an embedding; returns the nats a held-out word, and the model."""
    keras.utils.set_random_seed(seed)
    model = WordModel(embedding())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(arguments.rate), loss)
    train, held_out = (batches(words, arguments.length, arguments.batch) for words in texts)
    model.fit(*train, batch_size=arguments.batch, epochs=arguments.epochs, verbose=0)
    nats = model.evaluate(*held_out, batch_size=arguments.batch, verbose=0)
    return nats, model


def main(words=None):
    """Trains every side with every seed, times a step of each, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("KERAS_EXT_DATA"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--words", type=int, default=None, help="of the training text, all of them")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args(words)
    if arguments.data is None:
        parser.error("--data, or the variable KERAS_EXT_DATA, is the folder of data sets")

    train, held_out, ids = read_words(Path(arguments.data))
    texts = train[: arguments.words], held_out
    nats, models = collections.defaultdict(list), {}
    for seed in arguments.seeds:
        for name, embedding in sides(ids, arguments.width).items():
            result, models[name] = measure(embedding, texts, arguments, seed)
            nats[name].append(result)
    piece = [
        part[: arguments.batch] for part in batches(texts[0], arguments.length, arguments.batch)
    ]
    seconds = median_times(
        {name: lambda model=model: model.train_on_batch(*piece) for name, model in models.items()},
        arguments.repeats,
    )
    rows = []
    for name, model in models.items():
        weights = model.embedding.weights
        count = sum(int(np.prod(weight.shape)) for weight in weights)
        rows.append(
            [
                name,
                sum(weight.shape[0] for weight in weights),
                f"{count:,}",
                f"{3 * 4 * count / 2**20:.2f}",
                f"{np.mean(nats[name]):.3f} ± {np.std(nats[name], ddof=1) if nats[name][1:] else 0:.3f}",
                f"{1e3 * seconds[name]:.1f}",
            ]
        )
    print_table(
        f"{ids:,} words, width {arguments.width}, {len(texts[0]):,} words read "
        f"{arguments.epochs} times, {len(arguments.seeds)} seeds",
        ["embedding", "rows", "weights", "MB with Adam's", "nats a held-out word", "ms a step"],
        rows,
        arguments.repeats,
    )


if __name__ == "__main__":
    main()
