"""MiniLM on WNUT17 and BC5CDR: span scores beside a token-classification softmax head.

Both sides start from the same weights and see the same batches with the same optimizer, schedule
and number of epochs; both keep the epoch with the best dev F1, and both are scored on exact
entities in characters against all gold entities. Run: python benchmarks/ner_pretrained.py
"""

import argparse
import os
import time
from pathlib import Path

import keras
import numpy as np
from ner_encoder import minilm_folder, show_environment

from keras_ext.checkpoints import encoder_from_huggingface
from keras_ext.data import (
    Tokenizer,
    bucket_lengths,
    collate,
    labels_of,
    make_batches,
    merge_windows,
    plan,
    read_records,
)
from keras_ext.metrics import score_entities
from keras_ext.tasks import EntityRecognizer

FILES = {
    "wnut17": ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"),
    "bc5cdr": ("train.tsv", "devel.tsv", "test.tsv"),
}
MAX_LENGTH, STRIDE = 128, 32


class TokenClassifier:
    """A softmax over the BIO tags of words, read at the first piece of each word."""

    def __init__(self, encoder, tokenizer, labels):
        self.tokenizer, self.labels = tokenizer, labels
        tags = keras.layers.Dense(2 * len(labels) + 1, dtype="float32")(encoder.output)
        self.model = keras.Model(encoder.input, tags)

    def batches(self, windows, spans, batch_size, seed=None):
        lengths, counts = [len(w.ids) for w in windows], [len(s) for s in spans]
        for length, count, rows in make_batches(
            lengths, counts, batch_size, bucket_lengths(MAX_LENGTH), seed
        ):
            inputs, labels, weight = collate(
                windows, spans, rows, batch_size, length, count, self.tokenizer.pad_id
            )
            tags = np.zeros(inputs["token_ids"].shape, "int32")
            first = np.zeros(tags.shape, "float32")  # only the first piece of a word is learnt
            for row, index in enumerate(rows):
                first[row, word_starts(windows[index].offsets)] = 1.0
                for kind, start, end in labels[row][labels[row, :, 0] >= 0]:
                    tags[row, start : end + 1] = 2 + 2 * kind  # I-
                    tags[row, start] = 1 + 2 * kind  # B-
            yield rows, inputs, tags, first * weight[:, None]

    def fit(self, train, dev, epochs, batch_size, optimizer):
        windows, spans, _ = plan(train, self.tokenizer, self.labels, MAX_LENGTH, STRIDE)
        loss = keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight"
        )
        self.model.compile(optimizer=optimizer, loss=loss)
        best, weights = -1.0, None
        for epoch in range(epochs):
            for _, inputs, tags, weight in self.batches(windows, spans, batch_size, (0, epoch)):
                self.model.train_on_batch(inputs, tags, sample_weight=weight)
            f1 = self.evaluate(dev).micro.f1
            print(f"  softmax epoch {epoch + 1}: dev F1 {f1:.4f}", flush=True)
            if f1 > best:
                best, weights = f1, self.model.get_weights()
        self.model.set_weights(weights)
        return best

    def evaluate(self, records):
        windows, spans, _ = plan(records, self.tokenizer, self.labels, MAX_LENGTH, STRIDE)
        found = [None] * len(windows)
        for rows, inputs, _, _ in self.batches(windows, spans, 32):
            tags = np.asarray(self.model.predict_on_batch(inputs)).argmax(-1)
            for row, index in enumerate(rows):
                words = word_starts(windows[index].offsets)
                ends = np.append(words[1:], len(windows[index].ids) - 1) - 1
                spans = decode_bio(tags[row, words])
                spans[:, 1], spans[:, 2] = words[spans[:, 1]], ends[spans[:, 2]]
                found[index] = spans, np.ones(len(spans))
        predicted = [
            [(start, end, self.labels[kind]) for kind, start, end in entities]
            for entities in merge_windows(windows, found, len(records))
        ]
        return score_entities([record["entities"] for record in records], predicted)


def word_starts(offsets):
    """The tokens of a window that begin a word: between words of these files is a blank."""
    starts, ends = offsets[1:-1, 0], offsets[1:-1, 1]
    return 1 + np.flatnonzero(np.append(True, starts[1:] > ends[:-1]))


def decode_bio(tags):
    """BIO tags to spans, by the rules of conlleval: an I- that continues nothing starts a span."""
    spans = []
    for place, tag in enumerate(tags):
        kind, inside = (tag - 1) // 2, tag > 0 and tag % 2 == 0
        if inside and spans and spans[-1][0] == kind and spans[-1][2] == place - 1:
            spans[-1][2] = place
        elif tag > 0:
            spans.append([kind, place, place])
    return np.array(spans, "int32").reshape(-1, 3)


def main():
    """Trains both heads on both sets and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=list(FILES), choices=list(FILES))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--limit", type=int, default=None, help="sentences of each file")
    args = parser.parse_args()
    show_environment()
    print(f"settings: {vars(args)}, max_length {MAX_LENGTH}, seed 0\n")
    data = Path(os.environ.get("KERAS_EXT_DATA", "../shared/data"))
    rows = []
    for name in args.sets:
        train, dev, test = (read_records(data / name / file)[: args.limit] for file in FILES[name])
        labels = labels_of(train)
        folder = minilm_folder()
        tokenizer = Tokenizer.from_vocab(folder / "vocab.txt")

        keras.utils.set_random_seed(0)
        spans = EntityRecognizer(
            encoder_from_huggingface(folder),
            tokenizer,
            labels,
            max_length=MAX_LENGTH,
            stride=STRIDE,
        )
        spans.compile(learning_rate=args.learning_rate)
        began = time.perf_counter()
        settings = {"epochs": args.epochs, "batch_size": args.batch_size, "verbose": 2}
        history = spans.fit(train, dev, policy="nested", **settings)
        times = [time.perf_counter() - began]

        keras.utils.set_random_seed(0)
        softmax = TokenClassifier(encoder_from_huggingface(folder), tokenizer, labels)
        # The same optimizer for the other side, made anew from its settings.
        optimizer = spans.model.optimizer
        optimizer = type(optimizer).from_config(optimizer.get_config())
        vectors = [v for v in softmax.model.trainable_variables if len(v.shape) <= 1]
        optimizer.exclude_from_weight_decay(var_list=vectors)
        began = time.perf_counter()
        best = softmax.fit(train, dev, args.epochs, args.batch_size, optimizer)
        times.append(time.perf_counter() - began)

        ours = spans.evaluate(test).micro
        tuned = []
        for policy in ("nested", "flat"):
            threshold = spans.best_threshold(dev, policy=policy)
            name_of_row = f"the same, {policy} at {threshold:.2f}, from dev"
            found = spans.evaluate(dev).micro.f1
            tuned.append((name_of_row, found, spans.evaluate(test).micro, times[0]))
        other = softmax.evaluate(test).micro
        dev_f1 = max(history.history["val_f1"])
        for head, found, score, seconds in (
            ("Efficient GlobalPointer", dev_f1, ours, times[0]),
            *tuned,
            ("softmax over BIO tags", best, other, times[1]),
        ):
            rows.append(
                f"| {name} | {head} | {found:.4f} | {score.f1:.4f} | {score.precision:.4f} "
                f"| {score.recall:.4f} | {seconds:.0f} |"
            )
    print("\n| set | head | dev F1 | test F1 | precision | recall | training s |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
