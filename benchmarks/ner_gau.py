"""Entities from scratch: gated attention units beside attention and feed-forward.

CLUENER, characters, nothing pretrained; `GAUEncoder` beside `RoFormerEncoder` with as many weights,
the same data, epochs, batches and learning rates, each at its best rate of a grid by the dev file's
F1 after the last epoch, then with new seeds there. Runs are kept in a file: an interrupted series
goes on where it was.
Run: python benchmarks/ner_gau.py
"""

import argparse
import math
import os
import statistics
from pathlib import Path

import keras
from optimizer_quality import Runs, best_rate, mean_and_spread
from timing import print_table

from keras_ext.data import Tokenizer, labels_of, read_records
from keras_ext.models import GAUEncoder, RoFormerEncoder
from keras_ext.tasks import EntityRecognizer


def make_encoder(kind, vocabulary_size, width, blocks):
    """An encoder of so many blocks, or of twice as many units."""
    if kind == "RoFormerEncoder":
        heads = width // 32
        return RoFormerEncoder(vocabulary_size, blocks, heads, width, 4 * width, dropout=0.2)
    # A unit has width (3 units + key_size) weights, so this is half a block's 12 width^2.
    key_size = width // 2
    units = round((6 * width - key_size) / 3)
    return GAUEncoder(vocabulary_size, 2 * blocks, width, units, key_size, dropout=0.2)


def entity_f1(kind, rate, seed, sentences, epochs, batch_size, width, blocks):
    """Trains a recogniser from scratch.

    Returns:
        F1 on the dev file after the last epoch.
    """
    keras.utils.set_random_seed(seed)
    folder = Path(os.environ.get("KERAS_EXT_DATA", "../shared/data")) / "cluener2020"
    train = read_records(folder / "train.json")[:sentences]
    dev = read_records(folder / "dev.json")
    tokenizer = Tokenizer.from_characters((record["text"] for record in train), min_count=2)
    encoder = make_encoder(kind, tokenizer.vocabulary_size, width, blocks)
    print(f"{kind}: {encoder.count_params():,} weights, rate {rate:g}, seed {seed}", flush=True)
    recognizer = EntityRecognizer(
        encoder, tokenizer, labels_of(train), max_length=64, stride=16, head_size=32
    )
    steps = epochs * math.ceil(len(train) / batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)  # no warm-up
    recognizer.compile(keras.optimizers.AdamW(schedule, weight_decay=0.01))
    try:
        settings = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "policy": "nested"}
        recognizer.fit(train, verbose=0, **settings)
    except RuntimeError as error:  # the loss or the weights were no longer finite
        print(error)
        return math.nan
    return recognizer.evaluate(dev).micro.f1


def main(words=None):
    """Runs what is not there yet, and prints.

    Args:
        words: list of arguments; None: those of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default="build/ner_gau.jsonl", help="file of runs")
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sentences", type=int, default=None, help="default: all")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=2)
    arguments = vars(parser.parse_args(words))
    runs, rates, seeds = (
        Runs(arguments.pop("results")),
        arguments.pop("rates"),
        arguments.pop("seeds"),
    )

    def f1(kind, rate, seed):
        return runs.score(entity_f1, kind=kind, rate=rate, seed=seed, **arguments)

    rows = []
    for kind in ("GAUEncoder", "RoFormerEncoder"):
        grid = {rate: [f1(kind, rate, 0)] for rate in rates}
        best = best_rate(grid, lower=False)
        again = [f1(kind, best, seed) for seed in seeds]
        asked = {"kind": kind, **arguments}
        seconds = [
            run["cpu_seconds"]
            for run in runs.records
            if asked == {name: run.get(name) for name in asked}
        ]
        cells = [mean_and_spread(scores) for scores in grid.values()]
        rows.append([kind, *cells, f"{best:g}", mean_and_spread(again)])
        rows[-1].append(f"{statistics.median(seconds):.0f}")
    headers = ["encoder", *(f"{rate:g}" for rate in rates), "best rate"]
    headers += [f"{len(seeds)} new seeds there", "CPU s a run"]
    print_table("CLUENER dev F1 from scratch, no warm-up", headers, rows)


if __name__ == "__main__":
    main()
