"""Chinese entities without pretrained weights: CLUENER (flat) and CMeEE-V2 (nested).

The character vocabulary, the embeddings and all weights come from the training file alone.
CLUENER is scored on its dev file, which also chooses the epoch, as for the published figures; the
last epoch's F1 is printed, too. CMeEE-V2 is split in file order: of the first 4,000 records the
last 400 choose the epoch and the others are trained on; the last 1,000 are scored.
Run: python benchmarks/ner_scratch.py --set cluener
"""

import argparse
import os
import time
from pathlib import Path

import keras
from ner_encoder import show_environment

from keras_ext.data import Tokenizer, labels_of, read_records, swap_mentions
from keras_ext.models import BigramRoFormerEncoder
from keras_ext.tasks import EntityRecognizer


def read(name, data):
    """Records of a set: to train on, to choose the epoch by, to score."""
    if name == "cluener":
        dev = read_records(data / "cluener2020" / "dev.json")
        return read_records(data / "cluener2020" / "train.json"), dev, dev
    records = read_records(data / "cmeee_v2" / "CMeEE-V2_dev.json")
    return records[:3600], records[3600:4000], records[4000:]


def main():
    """Trains one recogniser and prints its scores, settings and wall time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="cluener", choices=["cluener", "cmeee"])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=8e-4)
    parser.add_argument("--ema-momentum", type=float, default=0.998)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--token-dropout", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--swapped-copies", type=int, default=2, help="of the training records")
    parser.add_argument("--num-layers", type=int, default=3)
    parser.add_argument("--hidden-dim", type=int, default=256)
    parser.add_argument("--head-size", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--stride", type=int, default=32)
    parser.add_argument("--min-count", type=int, default=2)
    parser.add_argument("--no-jit", action="store_true", help="train without XLA")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    show_environment()
    print(f"settings: {vars(args)}")
    train, dev, test = read(args.set, Path(os.environ.get("KERAS_EXT_DATA", "../shared/data")))
    keras.utils.set_random_seed(args.seed)
    tokenizer = Tokenizer.from_characters((r["text"] for r in train), min_count=args.min_count)
    encoder = BigramRoFormerEncoder(
        tokenizer.vocabulary_size,
        num_layers=args.num_layers,
        hidden_dim=args.hidden_dim,
        intermediate_dim=4 * args.hidden_dim,
        dropout=args.dropout,
        token_dropout=args.token_dropout,
    )
    recognizer = EntityRecognizer(
        encoder,
        tokenizer,
        labels_of(train),
        max_length=args.max_length,
        stride=args.stride,
        head_size=args.head_size,
    )
    copies = [swap_mentions(train, seed=args.seed + i) for i in range(args.swapped_copies)]
    print(f"weights: {recognizer.model.count_params():,}, vocabulary {tokenizer.vocabulary_size}")
    recognizer.compile(
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        ema_momentum=args.ema_momentum,
        jit_compile=not args.no_jit,
    )
    began = time.perf_counter()
    history = recognizer.fit(
        sum(copies, train),
        dev,
        epochs=args.epochs,
        batch_size=args.batch_size,
        seed=args.seed,
        verbose=2,
        policy="nested",
    )
    seconds = time.perf_counter() - began
    f1 = history.history["val_f1"]
    print(f"\n{args.set}: wall time {seconds:.0f} s, {seconds / args.epochs:.0f} s an epoch")
    print(f"best F1 {max(f1):.4f} (epoch {f1.index(max(f1)) + 1}), last epoch {f1[-1]:.4f}\n")
    print(recognizer.evaluate(test))
    if args.set == "cluener":  # no entity lies in another there, so overlaps can be dropped
        flat = recognizer.evaluate(test, policy="flat").micro.f1
        print(f"with policy='flat': F1 {flat:.4f}")


if __name__ == "__main__":
    main()
