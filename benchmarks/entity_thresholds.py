"""Policies and thresholds of a recogniser of entities, what choosing them takes, and its scores.

    python benchmarks/entity_thresholds.py

trains MiniLM for a part of an epoch on BC5CDR, and prints the F1 of each policy at 0, at its best
threshold and at the best one of each label, chosen on dev sentences; how often spans of a
probability are gold; and what dense layers in int8 change.
"""

import argparse
import os
import time
from pathlib import Path

import keras
import numpy as np
from ner_encoder import minilm_folder, show_environment

from keras_ext.checkpoints import encoder_from_huggingface
from keras_ext.data import Tokenizer, labels_of, read_records
from keras_ext.tasks import EntityRecognizer


def main():
    """Trains once and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=1200, help="sentences to train on")
    parser.add_argument("--held-out", type=int, default=1000, help="sentences of dev, and of test")
    args = parser.parse_args()
    show_environment()
    print(f"settings: {vars(args)}, 1 epoch, batch 16, learning rate 2e-4, seed 0\n")
    folder = Path(os.environ.get("KERAS_EXT_DATA", "../shared/data")) / "bc5cdr"
    train = read_records(folder / "train.tsv")[: args.train]
    dev, test = (
        read_records(folder / f"{part}.tsv")[: args.held_out] for part in ("devel", "test")
    )
    weights = minilm_folder()
    tokenizer = Tokenizer.from_vocab(weights / "vocab.txt")
    keras.utils.set_random_seed(0)
    encoder = encoder_from_huggingface(weights)
    recognizer = EntityRecognizer(encoder, tokenizer, labels_of(train), max_length=128, stride=32)
    recognizer.compile(learning_rate=2e-4)
    recognizer.fit(train, epochs=1, batch_size=16, verbose=2)
    thresholds(recognizer, dev, test)
    calibration(recognizer, test)
    quantized(recognizer, test)


def processor_time(function, *args, **kwargs):
    """What a function returns, and the processor time it takes."""
    began = time.process_time()
    result = function(*args, **kwargs)
    return result, time.process_time() - began


def thresholds(recognizer, dev, test):
    """A row for each policy and way to choose thresholds."""
    _, seconds = processor_time(recognizer.evaluate, dev, 0.0, "nested")
    print(f"\nOne evaluation of the dev sentences takes {seconds:.1f} s of processor time.\n")
    print("| policy | threshold | dev F1 | test F1 | processor s |\n|---|---|---|---|---|")
    for policy in ("nested", "flat", "longest"):
        for name, per_label in (("0", None), ("the best", False), ("of each label", True)):
            seconds = 0.0
            recognizer.threshold, recognizer.policy = 0.0, policy
            if per_label is not None:
                arguments = {"policy": policy, "per_label": per_label}
                found, seconds = processor_time(recognizer.best_threshold, dev, **arguments)
                name += f": {found if per_label else round(found, 3)}"
            scores = [recognizer.evaluate(records).micro.f1 for records in (dev, test)]
            print(f"| {policy} | {name} | {scores[0]:.4f} | {scores[1]:.4f} | {seconds:.1f} |")


def calibration(recognizer, test):
    """Spans of "flat" by probability: how many there are, and how many are gold."""
    found = recognizer.predict([record["text"] for record in test], -8.0, "flat")
    gold = [{(e["start"], e["end"], e["label"]) for e in r["entities"]} for r in test]
    pairs = [
        (e, (e.start, e.end, e.label) in g) for es, g in zip(found, gold, strict=True) for e in es
    ]
    hits = np.array([hit for _, hit in pairs])
    scores = np.array([entity.score for entity, _ in pairs])
    print("\n| probability by | mean difference from the share of gold | shares, from 0 to 1 |")
    print("|---|---|---|")
    for factor in (1, 2):
        chances = 1 / (1 + np.exp(-factor * scores))
        tenths = np.minimum((10 * chances).astype(int), 9)
        groups = [tenths == tenth for tenth in range(10) if (tenths == tenth).any()]
        error = sum(abs(hits[g].sum() - chances[g].sum()) for g in groups) / len(hits)
        shares = ", ".join(f"{hits[g].mean():.2f}" for g in groups)
        print(f"| sigmoid({factor} score) | {error:.4f} | {shares} |")


def quantized(recognizer, test):
    """The F1 with dense layers in int8."""
    recognizer.threshold, recognizer.policy = 0.0, "flat"
    before, first = processor_time(recognizer.evaluate, test)
    size = sum(w.nbytes for w in recognizer.model.get_weights())
    recognizer.model.quantize("int8", filters=lambda layer: isinstance(layer, keras.layers.Dense))
    recognizer.warm_up()
    after, then = processor_time(recognizer.evaluate, test)
    smaller = sum(w.nbytes for w in recognizer.model.get_weights())
    print("\n| dense layers | test F1 | weights, MB | processor s |\n|---|---|---|---|")
    print(f"| float32 | {before.micro.f1:.4f} | {size / 1e6:.1f} | {first:.1f} |")
    print(f"| int8 | {after.micro.f1:.4f} | {smaller / 1e6:.1f} | {then:.1f} |")


if __name__ == "__main__":
    main()
