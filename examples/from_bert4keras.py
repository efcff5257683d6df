"""A bert4keras script for named entities, changed as little as possible.

    python examples/from_bert4keras.py --data folder --weights chinese_L-12_H-768_A-12

The data folder has `*train.jsonl` and `*dev.jsonl`, the weights folder `bert_config.json`,
`vocab.txt` and `bert_model.ckpt.*`. Without weights a tiny model learns from scratch.
"""

import argparse
import random
from pathlib import Path

import keras
import numpy as np

from keras_ext import callbacks, data, entities, metrics
from keras_ext.bert4keras import build_transformer_model
from keras_ext.layers import EfficientGlobalPointer
from keras_ext.losses import GlobalPointerCrossentropy

MAX_LENGTH = 128
BATCH_SIZE = 16
EPOCHS = 5
LEARNING_RATE = 2e-5
BEST = "best_model.weights.h5"
TINY = dict(num_hidden_layers=2, num_attention_heads=4, hidden_size=64, intermediate_size=128)
TINY["hidden_act"] = "gelu"


def encode(tokenizer, text):
    """Ids with [CLS] and [SEP], cut off at MAX_LENGTH, and the characters of each token."""
    ids, offsets = (part[: MAX_LENGTH - 2] for part in tokenizer.encode(text))
    ids = [tokenizer.start_id, *ids, tokenizer.end_id]
    return ids, np.concatenate([[(-1, -1)], offsets, [(-1, -1)]])


def inputs_of(token_ids):
    """Token ids and segment ids of one length, so that there is one compilation."""
    ids = keras.utils.pad_sequences(token_ids, MAX_LENGTH, padding="post")
    return ids, np.zeros_like(ids)


class Batches(keras.utils.PyDataset):
    """Inputs and gold spans `type, start, end`, in a new order in each epoch."""

    def __init__(self, records, tokenizer, labels):
        super().__init__()
        self.records, self.tokenizer = list(records), tokenizer
        self.label_ids = {label: index for index, label in enumerate(labels)}
        self.most = 1 + max(len(record["entities"]) for record in records)

    def __len__(self):
        return -(-len(self.records) // BATCH_SIZE)

    def __getitem__(self, index):
        token_ids, spans = [], []
        for record in self.records[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]:
            ids, offsets = encode(self.tokenizer, record["text"])
            found = data.entities_to_tokens(record["entities"], offsets, self.label_ids)
            token_ids.append(ids)
            spans.append([*found, (-1, -1, -1)])  # padding, so that no row is empty
        spans = keras.utils.pad_sequences(spans, self.most, padding="post", value=-1)
        return inputs_of(token_ids), spans

    def on_epoch_end(self):
        random.shuffle(self.records)


def predict(model, tokenizer, labels, texts):
    """Yields the entities of each text: (start, end, label), in characters, end exclusive."""
    for first in range(0, len(texts), BATCH_SIZE):
        encoded = [encode(tokenizer, text) for text in texts[first : first + BATCH_SIZE]]
        scores = model.predict_on_batch(inputs_of([ids for ids, _ in encoded]))
        for (_, offsets), (spans, _) in zip(encoded, entities.decode_spans(scores), strict=True):
            spans = data.tokens_to_characters(spans, offsets).tolist()
            yield [(start, end, labels[i]) for i, start, end in spans if 0 <= start < end]


class Evaluator(keras.callbacks.Callback):
    """Prints the F1 on the dev file and keeps the weights of the best epoch."""

    def __init__(self, records, *tokenizer_and_labels):
        super().__init__()
        self.records, self.rest, self.best = records, tokenizer_and_labels, -1.0

    def on_epoch_end(self, epoch, logs=None):
        found = list(predict(self.model, *self.rest, [r["text"] for r in self.records]))
        gold = [r["entities"] for r in self.records]
        f1 = metrics.score_entities(gold, found).micro.f1
        if f1 > self.best:
            self.best = f1
            self.model.save_weights(BEST)
        print(f"\nF1 {f1:.4f}, best {self.best:.4f}")


def main():
    """Trains on the train file and measures on the dev file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path(__file__).parent / "data")
    parser.add_argument("--weights", type=Path)
    args = parser.parse_args()
    folder, weights = args.data, args.weights
    train = data.read_records(next(folder.glob("*train.jsonl")))
    dev = data.read_records(next(folder.glob("*dev.jsonl")))
    labels = data.labels_of(train)
    if weights:
        tokenizer = data.Tokenizer.from_vocab(weights / "vocab.txt")
        base = build_transformer_model(weights / "bert_config.json", weights / "bert_model.ckpt")
    else:
        tokenizer = data.Tokenizer.from_characters(record["text"] for record in train)
        base = build_transformer_model(vocab_size=tokenizer.vocabulary_size, **TINY)
    model = keras.Model(base.inputs, EfficientGlobalPointer(len(labels), 64)(base.output))
    optimizer = keras.optimizers.Adam(LEARNING_RATE if weights else 1e-3, epsilon=1e-6)
    model.compile(optimizer, GlobalPointerCrossentropy())
    batches, evaluator = Batches(train, tokenizer, labels), Evaluator(dev, tokenizer, labels)
    model.fit(batches, epochs=EPOCHS, callbacks=[evaluator, callbacks.KeepFreedMemory()])


if __name__ == "__main__":
    main()
