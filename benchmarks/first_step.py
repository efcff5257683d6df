"""How long does the first training step take, which is traced, and that of a second `fit`?

all-MiniLM-L6-v2 in both tasks, against Keras' `fit` of the same encoder with a dense head and
AdamW, as a user of plain Keras writes it. Every run is a process of its own, in turn; the figures are
seconds of the processor, all threads, from the beginning of `fit` to the end of its first batch.

    python benchmarks/first_step.py
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from timing import BACKEND, print_table

SIDES = ("EntityRecognizer", "SentenceEncoder", "plain Keras")
LENGTH, BATCH = 48, 16


def entity_fit():
    """A function that fits a recogniser with a callback."""
    from ner_encoder import minilm_folder

    from keras_ext.checkpoints import encoder_from_huggingface
    from keras_ext.data import Tokenizer
    from keras_ext.tasks import EntityRecognizer

    tokenizer = Tokenizer.from_vocab(minilm_folder() / "vocab.txt")
    encoder = encoder_from_huggingface(minilm_folder())
    recognizer = EntityRecognizer(encoder, tokenizer, ["thing"], max_length=LENGTH, stride=8)
    recognizer.compile(learning_rate=3e-4)
    entity = {"start": 2, "end": 7, "label": "thing"}
    text = "A house, and " + "one more " * 12
    records = [{"text": text[: 20 + i], "entities": [entity]} for i in range(2 * BATCH)]
    return lambda callback: recognizer.fit(
        records, epochs=1, batch_size=BATCH, verbose=0, callbacks=[callback]
    )


def sentence_fit():
    """A function that fits an encoder of sentences with a callback."""
    from ner_encoder import minilm_folder

    from keras_ext.tasks import SentenceEncoder

    sentences = SentenceEncoder.from_huggingface(minilm_folder(), max_length=LENGTH)
    sentences.compile(learning_rate=1e-4)
    pairs = [(f"text {i}", f"another text {i} " * (i % 5 + 1), i / 7) for i in range(2 * BATCH)]
    return lambda callback: sentences.fit(
        pairs, epochs=1, batch_size=BATCH, verbose=0, callbacks=[callback]
    )


def plain_fit():
    """A function that fits a Keras model with a callback, compiled anew as for a new schedule."""
    import keras
    import numpy as np
    from ner_encoder import minilm_folder

    from keras_ext.checkpoints import encoder_from_huggingface

    encoder = encoder_from_huggingface(minilm_folder())
    model = keras.Model(encoder.input, keras.layers.Dense(8)(encoder.output))

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            ids = np.full((BATCH, LENGTH - 16 * index), 7, "int32")
            inputs = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids > 0}
            return inputs, np.zeros((*ids.shape, 8), "float32")

    def fit(callback):
        rate = keras.optimizers.schedules.CosineDecay(0.0, 2, warmup_target=1e-4, warmup_steps=1)
        optimizer = keras.optimizers.AdamW(rate, global_clipnorm=1.0)
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
        model.compile(optimizer, "mse")
        model.fit(Batches(), verbose=0, callbacks=[callback])

    return fit


def side(name):
    """Runs in a process of its own: prints seconds of the first step of two fits."""
    import keras

    made = {"EntityRecognizer": entity_fit, "SentenceEncoder": sentence_fit}
    fit = made.get(name, plain_fit)()
    seconds = []
    for _ in range(2):
        ended = []

        def first(batch, logs=None, ended=ended):
            ended.append(time.process_time())

        start = time.process_time()
        fit(keras.callbacks.LambdaCallback(on_train_batch_end=first))
        seconds.append(ended[0] - start)
    print(json.dumps(seconds))


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if BACKEND != "tensorflow":
        parser.error(f"Keras must run on TensorFlow. Received: KERAS_BACKEND={BACKEND}")
    found = {name: [] for name in SIDES}
    for _ in range(arguments.rounds):
        for name in SIDES:
            command = [sys.executable, str(Path(__file__)), "--side", name]
            child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[name].append(json.loads(child.stdout.splitlines()[-1]))
    medians = {
        name: [statistics.median(fits) for fits in zip(*runs, strict=True)]
        for name, runs in found.items()
    }
    rows = [
        [name, *(f"{s:.1f}" for s in seconds), f"{seconds[0] / medians['plain Keras'][0]:.2f}"]
        for name, seconds in medians.items()
    ]
    columns = ["fit of", "first step, s", "first step of a second fit, s", "of plain Keras"]
    print_table("The first step of MiniLM, processor time", columns, rows, arguments.rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        side(sys.argv[2])
    else:
        main()
