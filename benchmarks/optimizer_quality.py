"""How well do AdamW, Lion and Tiger train? Each over the same learning rates.

    char-lm   held-out loss of a language model of characters, every rate with every seed
    cluener   F1 of a recogniser from few sentences, every rate once, then the best with new seeds
    width     does the best rate of the language model move with its width?

All rates warm up over a tenth of the steps and fall to 0 along a cosine. Runs are kept in a file:
an interrupted series goes on where it was, and what is there already is only printed.
Run: python benchmarks/optimizer_quality.py char-lm
"""

import argparse
import json
import math
import os
import statistics
import time
from pathlib import Path

import keras
import numpy as np
from character_model import character_model, pieces, read_characters
from timing import print_table

from keras_ext import optimizers
from keras_ext.data import Tokenizer, labels_of, read_records
from keras_ext.models import BigramRoFormerEncoder
from keras_ext.tasks import EntityRecognizer

OPTIMIZERS = {
    "AdamW": lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.01),
    "Lion": lambda rate: keras.optimizers.Lion(rate, weight_decay=0.01),
    "Tiger": lambda rate: optimizers.Tiger(rate, weight_decay=0.01),
}


def data_folder():
    """The folder of data sets."""
    return Path(os.environ.get("KERAS_EXT_DATA", "../shared/data"))


def make_optimizer(name, rate, steps):
    """An optimizer whose rate warms up to `rate` and decays to 0 within `steps` steps."""
    warmup = max(steps // 10, 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(steps - warmup, 1), warmup_target=rate, warmup_steps=warmup
    )
    return OPTIMIZERS[name](schedule)


def character_loss(optimizer, rate, seed, width, layers, length, batch_size, steps):
    """Trains a language model of characters.

    Returns:
        The loss on held-out text, in nats a character.
    """
    keras.utils.set_random_seed(seed)
    train, held_out, characters = read_characters(data_folder())
    model = character_model(characters, width, layers)
    # XLA, as TensorFlow's own graph is slow to attend without a batch axis in the mask.
    model.compile(
        make_optimizer(optimizer, rate, steps),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, len(train) - length, steps * batch_size)
    model.fit(*pieces(train, starts, length), batch_size=batch_size, shuffle=False, verbose=0)
    starts = np.arange(0, len(held_out) - length, length)
    starts = starts[: len(starts) // batch_size * batch_size]  # whole batches compile once
    return model.evaluate(*pieces(held_out, starts, length), batch_size=batch_size, verbose=0)


def cluener_f1(optimizer, rate, seed, sentences, dev_sentences, epochs, batch_size, width, layers):
    """Trains a recogniser on the first sentences of CLUENER, from scratch.

    Returns:
        F1 on the dev file after the last epoch; not a number where the training has diverged.
    """
    keras.utils.set_random_seed(seed)
    folder = data_folder() / "cluener2020"
    train = read_records(folder / "train.json")[:sentences]
    dev = read_records(folder / "dev.json")[:dev_sentences]
    tokenizer = Tokenizer.from_characters((record["text"] for record in train), min_count=2)
    encoder = BigramRoFormerEncoder(
        tokenizer.vocabulary_size,
        bigram_buckets=20000,
        num_layers=layers,
        num_heads=width // 32,
        hidden_dim=width,
        intermediate_dim=4 * width,
        embedding_dim=width // 2,
        dropout=0.2,
        token_dropout=0.1,
    )
    recognizer = EntityRecognizer(
        encoder, tokenizer, labels_of(train), max_length=64, stride=16, head_size=32
    )
    steps = epochs * math.ceil(len(train) / batch_size)
    recognizer.compile(make_optimizer(optimizer, rate, steps))
    try:
        settings = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "policy": "nested"}
        recognizer.fit(train, verbose=0, **settings)
    except RuntimeError as error:  # the loss or the weights were no longer finite
        print(error)
        return math.nan
    return recognizer.evaluate(dev).micro.f1


class Runs:
    """The scores of runs, in a file of JSON lines.

    Args:
        path: of the file; it need not be there.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.records = [json.loads(line) for line in lines]

    def score(self, measure, **settings):
        """`measure(**settings)`, from the file if it is there, else from now on."""
        run = {"measure": measure.__name__, **settings}
        for record in self.records:
            if run == {name: record.get(name) for name in run}:
                return record["score"]
        began = time.process_time()
        score = measure(**settings)
        keras.utils.clear_session()
        record = {**run, "score": score, "cpu_seconds": round(time.process_time() - began, 1)}
        self.records.append(record)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        return score


def mean_and_spread(scores):
    """The mean and, of several, the standard deviation, as text."""
    if not all(map(math.isfinite, scores)):
        return "not finite"
    spread = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.4f}{spread}"


def best_rate(scores, lower):
    """The rate with the best mean.

    Args:
        scores: dict rate -> list of scores.
        lower: bool, whether the lowest is the best.
    """
    sign = 1 if lower else -1
    means = {rate: sign * statistics.mean(values) for rate, values in scores.items()}
    return min(means, key=lambda rate: means[rate] if math.isfinite(means[rate]) else math.inf)


def lowest_point(scores):
    """The lowest point of the parabola through the best mean and its neighbours.

    Args:
        scores: dict rate -> list of losses. The abscissa is the logarithm of the rate.

    Returns:
        The rate there as text, or what is known of it where the best is at the end of the grid.
    """
    rates = sorted(scores)
    at = rates.index(best_rate(scores, lower=True))
    if at == 0:
        return f"≤ {rates[0]:.1e}"
    if at == len(rates) - 1:
        return f"≥ {rates[-1]:.1e}"
    near = rates[at - 1 : at + 2]
    losses = [statistics.mean(scores[rate]) for rate in near]
    if not all(map(math.isfinite, losses)):
        return "unknown"
    square, slope, _ = np.polyfit(np.log(near), losses, 2)
    return f"{math.exp(-slope / (2 * square)):.1e}"


def compare_losses(runs, arguments):
    """The table of `char-lm`."""
    scores = {name: {rate: [] for rate in arguments.rates} for name in arguments.optimizers}
    for seed in arguments.seeds:
        for rate in arguments.rates:
            for name in arguments.optimizers:
                scores[name][rate].append(character_score(runs, arguments, name, rate, seed))
    rows = []
    for name, by_rate in scores.items():
        best = best_rate(by_rate, lower=True)
        cells = map(mean_and_spread, by_rate.values())
        rows.append([name, *cells, f"{best:g}", mean_and_spread(by_rate[best])])
    headers = ["optimizer", *(f"{rate:g}" for rate in arguments.rates), "best rate", "loss there"]
    print_table(f"Held-out loss, nats a character, {len(arguments.seeds)} seeds", headers, rows)


def character_score(runs, arguments, name, rate, seed, width=None):
    """The loss of one language model."""
    sizes = {size: getattr(arguments, size) for size in ("layers", "length", "batch_size", "steps")}
    width = width or arguments.width
    return runs.score(character_loss, optimizer=name, rate=rate, seed=seed, width=width, **sizes)


def compare_entities(runs, arguments):
    """The table of `cluener`."""
    settings = ("sentences", "dev_sentences", "epochs", "batch_size", "width", "layers")
    settings = {name: getattr(arguments, name) for name in settings}

    def f1(name, rate, seed):
        return runs.score(cluener_f1, optimizer=name, rate=rate, seed=seed, **settings)

    scores = {name: {} for name in arguments.optimizers}
    for rate in arguments.rates:
        for name in arguments.optimizers:
            scores[name][rate] = [f1(name, rate, arguments.grid_seed)]
    best = {name: best_rate(by_rate, lower=False) for name, by_rate in scores.items()}
    again = {name: [] for name in scores}
    for seed in arguments.seeds:
        for name in scores:
            again[name].append(f1(name, best[name], seed))
    rows = []
    for name, by_rate in scores.items():
        cells = map(mean_and_spread, by_rate.values())
        rows.append([name, *cells, f"{best[name]:g}", mean_and_spread(again[name])])
    headers = ["optimizer", *(f"{rate:g}" for rate in arguments.rates)]
    headers += ["best rate", f"{len(arguments.seeds)} new seeds there"]
    print_table(f"CLUENER dev F1 from {arguments.sentences} sentences", headers, rows)


def compare_widths(runs, arguments):
    """The table of `width`."""
    rows = []
    for name in arguments.optimizers:
        for width in arguments.widths:
            by_rate = {
                rate: [
                    character_score(runs, arguments, name, rate, seed, width)
                    for seed in arguments.seeds
                ]
                for rate in arguments.rates
            }
            best = best_rate(by_rate, lower=True)
            cells = map(mean_and_spread, by_rate.values())
            rows.append([name, width, *cells, f"{best:g}", lowest_point(by_rate)])
    headers = ["optimizer", "width", *(f"{rate:g}" for rate in arguments.rates)]
    headers += ["best rate", "by a parabola"]
    print_table("Held-out loss at two widths, nats a character", headers, rows)


def main(words=None):
    """Runs what is not there yet, and prints.

    Args:
        words: list of arguments; None: those of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(required=True, metavar="part")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--results", default="build/optimizer_quality.jsonl", help="file of runs")
    common.add_argument("--layers", type=int, default=2)
    language = argparse.ArgumentParser(add_help=False, parents=[common])
    language.add_argument("--length", type=int, default=64, help="characters of a piece of text")
    language.add_argument("--steps", type=int, default=400)
    language.add_argument("--batch-size", type=int, default=16)

    part = parts.add_parser("char-lm", parents=[language])
    part.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    rates = [4e-4, 1e-3, 2.5e-3, 6.4e-3, 1.6e-2]
    part.add_argument("--rates", type=float, nargs="+", default=rates)
    part.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    part.add_argument("--width", type=int, default=128)
    part.set_defaults(compare=compare_losses)

    part = parts.add_parser("cluener", parents=[common])
    part.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    rates = [6e-5, 2e-4, 6e-4, 2e-3, 6e-3]
    part.add_argument("--rates", type=float, nargs="+", default=rates)
    part.add_argument("--grid-seed", type=int, default=0)
    part.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    part.add_argument("--sentences", type=int, default=2000)
    part.add_argument("--dev-sentences", type=int, help="to score; default: all")
    part.add_argument("--epochs", type=int, default=8)
    part.add_argument("--batch-size", type=int, default=8)
    part.add_argument("--width", type=int, default=128)
    part.set_defaults(compare=compare_entities)

    part = parts.add_parser("width", parents=[language])
    part.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=["AdamW", "Tiger"])
    rates = [1e-3, 2.5e-3, 6.4e-3, 1.6e-2, 4e-2]
    part.add_argument("--rates", type=float, nargs="+", default=rates)
    part.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    part.add_argument("--widths", type=int, nargs="+", default=[64, 256])
    part.set_defaults(compare=compare_widths)

    arguments = parser.parse_args(words)
    arguments.compare(Runs(arguments.results), arguments)


if __name__ == "__main__":
    main()
