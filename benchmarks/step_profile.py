"""What is a training step of EntityRecognizer and SentenceEncoder made of?

all-MiniLM-L6-v2 in `fit`, by TensorFlow's profiler: the time of its operations on all threads, by kind,
as a share of all of them in some steps after the first ones.

    python benchmarks/step_profile.py
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import keras
from ner_encoder import minilm_folder
from timing import BACKEND, print_table

from keras_ext.checkpoints import encoder_from_huggingface
from keras_ext.data import Tokenizer
from keras_ext.tasks import EntityRecognizer, SentenceEncoder

FIRST, STEPS = 3, 8
KINDS = {
    "matrix products": ("MatMul", "BatchMatMul", "FusedMatMul", "FusedBatchMatMul"),
    "optimizer: assignments": ("Assign", "Resource"),
    "random numbers of dropout": ("Random", "Stateless", "Philox"),
    "embedding rows": ("Gather", "UnsortedSegmentSum"),
    "transpositions, copies": ("Transpose", "Concat", "Pack", "Slice", "StridedSlice", "Pad"),
    "reductions": ("Sum", "Mean", "Max", "L2Loss", "Softmax", "SquaredDifference"),
}


class Profile(keras.callbacks.Callback):
    """Profiles some steps into a folder."""

    def __init__(self, folder):
        super().__init__()
        self.folder = str(folder)

    def on_train_batch_begin(self, batch, logs=None):
        import tensorflow as tf

        if batch == FIRST:
            tf.profiler.experimental.start(self.folder)

    def on_train_batch_end(self, batch, logs=None):
        import tensorflow as tf

        if batch == FIRST + STEPS - 1:
            tf.profiler.experimental.stop()


def entity_fit(batch, length, steps):
    """A function that fits a recogniser with callbacks."""
    tokenizer = Tokenizer.from_vocab(minilm_folder() / "vocab.txt")
    encoder = encoder_from_huggingface(minilm_folder())
    recognizer = EntityRecognizer(encoder, tokenizer, ["one", "two"], max_length=length, stride=8)
    recognizer.compile(learning_rate=3e-4)
    entity = {"start": 2, "end": 7, "label": "one"}
    text = "A house, and " + "one more " * (length // 2 - 3)
    records = [{"text": text, "entities": [entity]}] * (batch * steps)
    arguments = {"epochs": 1, "batch_size": batch, "verbose": 0}
    return lambda callbacks: recognizer.fit(records, callbacks=callbacks, **arguments)


def sentence_fit(batch, length, steps):
    """A function that fits an encoder of sentences with callbacks."""
    sentences = SentenceEncoder.from_huggingface(minilm_folder(), max_length=length)
    sentences.compile(learning_rate=1e-4)
    text = "one more " * (length // 2 - 1)
    pairs = [(text, text[: -9 * (i % 3 + 1)], i / 7) for i in range(batch * steps)]
    arguments = {"epochs": 1, "batch_size": batch, "verbose": 0}
    return lambda callbacks: sentences.fit(pairs, callbacks=callbacks, **arguments)


def operations(folder):
    """Picoseconds by the kind of TensorFlow operation, from a profile."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    (path,) = Path(folder).rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    found = Counter()
    for plane in space.planes:
        if not plane.name.startswith("/host:CPU"):
            continue
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                place, colon, kind = name.rpartition(":")
                # Others are the executor's, around them.
                if (
                    colon
                    and "::" not in name
                    and kind.lstrip("_")[:1].isupper()
                    and kind.replace("_", "").isalnum()
                ):
                    found[kind.lstrip("_").removeprefix("Mkl").removeprefix("Native")] += (
                        event.duration_ps
                    )
    return found


def share(found):
    """Rows of a table: kinds of operations and their share."""
    by_kind, rest = Counter(), Counter()
    for name, duration in found.items():
        kinds = [kind for kind, starts in KINDS.items() if name.startswith(starts)]
        if kinds:
            by_kind[kinds[0]] += duration
        else:
            rest[name] += duration
    total = sum(found.values())
    by_kind["elementwise and all else"] = sum(rest.values())
    rows = [[kind, f"{100 * time / total:.0f} %"] for kind, time in by_kind.most_common()]
    names = ", ".join(f"{name} {100 * time / total:.0f} %" for name, time in rest.most_common(6))
    return [*rows, [f"of these: {names}", ""]], total / STEPS / 1e9


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=48)
    arguments = parser.parse_args()
    if BACKEND != "tensorflow":
        parser.error(f"Keras must run on TensorFlow. Received: KERAS_BACKEND={BACKEND}")
    for name, make in {"EntityRecognizer": entity_fit, "SentenceEncoder": sentence_fit}.items():
        fit = make(arguments.batch, arguments.length, FIRST + STEPS + 1)
        with tempfile.TemporaryDirectory() as folder:
            fit([Profile(folder)])
            rows, milliseconds = share(operations(folder))
        title = f"{name}, b={arguments.batch}, n={arguments.length}: {milliseconds:.0f} ms a step"
        print_table(title, ["operations", "share of their time"], rows)


if __name__ == "__main__":
    main()
