"""The same training four times: float32 and half precision, each without and with XLA.

    python examples/mixed_precision_xla.py

trains a small recogniser of entities from scratch, prints what each way costs and how well it
does, and draws the four loss curves over each other. The data are CLUENER if the environment
variable KERAS_EXT_DATA names a folder that has it, else the English corpus of the project; or files
of your own with --train and --dev. The half precision is bfloat16, or --half mixed_float16.

The runs come one after another, so another busy program makes the later ones look slow.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_ext.callbacks import CompileCounter
from keras_ext.data import Tokenizer, labels_of, read_records
from keras_ext.models import BigramRoFormerEncoder
from keras_ext.tasks import EntityRecognizer

CORPUS = Path(__file__).parent / "data"
HEADERS = ["precision", "XLA", "ms a step", "speed", "compilations", "whole s", "loss", "dev F1"]


class StepLog(keras.callbacks.Callback):
    """The loss and the seconds of each step."""

    def __init__(self):
        super().__init__()
        self.losses, self.seconds = [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.losses.append([])
        self.seconds.append([])
        self.sum = 0.0

    def on_train_batch_begin(self, batch, logs=None):
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        total = float(logs["loss"]) * (batch + 1)  # Keras logs the mean since the epoch's beginning
        self.seconds[-1].append(time.perf_counter() - self.start)
        self.losses[-1].append(total - self.sum)
        self.sum = total


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, help="default: CLUENER or the project's corpus")
    parser.add_argument("--dev", type=Path, help="is scored")
    parser.add_argument("--sentences", type=int, default=1200, help="of train; of dev 400")
    parser.add_argument("--epochs", type=int, default=4, help="the last one is timed: 2 or more")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--hidden-dim", type=int, default=128)
    parser.add_argument("--num-layers", type=int, default=1)
    parser.add_argument("--max-length", type=int, default=48)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument(
        "--dropout",
        type=float,
        default=0.1,
        help="XLA draws other masks: 0 brings the curves together",
    )
    parser.add_argument(
        "--half", choices=["mixed_float16", "mixed_bfloat16"], default="mixed_bfloat16"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default=Path("mixed_precision_xla.png"), type=Path)
    args = parser.parse_args()
    if (args.train is None) != (args.dev is None):
        parser.error("give both --train and --dev, or neither")
    if args.epochs < 2:
        parser.error("the first epoch compiles, so at least 2 are needed")
    if args.train is None:
        cluener = Path(os.environ.get("KERAS_EXT_DATA", "")) / "cluener2020"
        real = (cluener / "train.json").is_file()
        args.train = cluener / "train.json" if real else CORPUS / "nested_train.jsonl"
        args.dev = cluener / "dev.json" if real else CORPUS / "nested_dev.jsonl"
    return args


def run(args, train, dev, policy, jit):
    """Trains once; a row of the table, and the loss of every step."""
    keras.utils.set_random_seed(args.seed)
    tokenizer = Tokenizer.from_characters(record["text"] for record in train)
    encoder = BigramRoFormerEncoder(
        tokenizer.vocabulary_size,
        bigram_buckets=20000,
        num_layers=args.num_layers,
        num_heads=4,
        hidden_dim=args.hidden_dim,
        intermediate_dim=4 * args.hidden_dim,
        embedding_dim=64,
        dropout=args.dropout,
        token_dropout=args.dropout,
        dtype=policy,
    )
    recognizer = EntityRecognizer(
        encoder,
        tokenizer,
        labels_of(train),
        max_length=args.max_length,
        stride=args.max_length // 3,
        head_size=32,
    )
    recognizer.compile(learning_rate=args.learning_rate, jit_compile=jit)
    counter, log = CompileCounter(), StepLog()
    start = time.perf_counter()
    recognizer.fit(
        train,
        epochs=args.epochs,
        batch_size=args.batch_size,
        callbacks=[counter, log],
        verbose=0,
        seed=args.seed,
    )
    whole = time.perf_counter() - start
    return {
        "precision": policy,
        "XLA": jit,
        "step": statistics.median(log.seconds[-1]),  # nothing is left to compile by then
        "compilations": counter.counts["train"],
        "whole": whole,
        "loss": statistics.mean(log.losses[-1]),
        "f1": recognizer.evaluate(dev).micro.f1,
        "losses": np.concatenate(log.losses),
    }


def print_table(rows):
    """A Markdown table; the speed is that of the steps, relative to the first row."""
    print("\n| " + " | ".join(HEADERS) + " |\n" + "|---" * len(HEADERS) + "|")
    for row in rows:
        print(
            f"| {row['precision']} | {'yes' if row['XLA'] else 'no'} | {1000 * row['step']:.1f} "
            f"| {rows[0]['step'] / row['step']:.2f} | {row['compilations']} | {row['whole']:.0f} "
            f"| {row['loss']:.4f} | {row['f1']:.4f} |"
        )


def plot(rows, path):
    """Draws the loss of the four runs over each other, the mean of the last 20 steps."""
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    for row in rows:
        width = min(20, len(row["losses"]))
        smooth = np.convolve(row["losses"], np.ones(width) / width, mode="valid")
        axes.plot(
            np.arange(width, width + len(smooth)),
            smooth,
            color="tab:blue" if row["precision"] == "float32" else "tab:orange",
            linestyle="--" if row["XLA"] else "-",
            label=f"{row['precision']}{', XLA' if row['XLA'] else ''}",
        )
    axes.set(xlabel="step", ylabel="training loss", yscale="log", title="same seed, same batches")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    """Four runs, a table, a picture."""
    args = arguments()
    train, dev = read_records(args.train)[: args.sentences], read_records(args.dev)[:400]
    print(f"{len(train)} sentences of {args.train.name}, {keras.backend.backend()}, ", end="")
    print(f"{keras.distribution.list_devices()[0]}; half precision: {args.half}")
    rows = []
    for policy in ("float32", args.half):
        for jit in (False, True):
            rows.append(run(args, train, dev, policy, jit))
            print(f"{policy}{' with XLA' if jit else ''}: {rows[-1]['whole']:.0f} s", flush=True)
    print_table(rows)
    plot(rows, args.output)
    print(f"\nwrote {args.output}")


if __name__ == "__main__":
    main()
