"""What does `KeepFreedMemory` save in `fit`, on TensorFlow on a CPU, with and without oneDNN?

Keras' `fit` of one encoder with a dense head, from a PyDataset: without a callback, and with ours.
Every side is a process of its own; one at a time runs an epoch, in turn. The times are seconds of a
training step: by the clock, of the processor, and of those in the kernel; page faults of a step;
and the peak of resident memory, also after the memory that is free was given back.

    python benchmarks/allocator.py
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from timing import BACKEND, print_table

SIDES = ("plain", "KeepFreedMemory")
ROW = ("seconds", "processor", "kernel", "faults")


def side(name, layers, width, batch, length, steps):
    """Runs in a process of its own: an epoch for each line that it reads, and a line for each."""
    import resource
    import time

    import keras
    import numpy as np
    from memory import resident_megabytes

    from keras_ext.callbacks import KeepFreedMemory
    from keras_ext.models import BertEncoder

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return steps

        def __getitem__(self, index):
            ids = np.random.default_rng(index).integers(1, 1000, (batch, length), "int32")
            inputs = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids > 0}
            return inputs, np.zeros((batch, length, 8), "float32")

    class Epochs(keras.callbacks.Callback):
        def now(self):
            used = resource.getrusage(resource.RUSAGE_SELF)
            processor = used.ru_utime + used.ru_stime
            return np.array([time.perf_counter(), processor, used.ru_stime, used.ru_minflt])

        def on_epoch_begin(self, epoch, logs=None):
            if not sys.stdin.readline():
                self.model.stop_training = True
            self.start = self.now()

        def on_epoch_end(self, epoch, logs=None):
            row = dict(zip(ROW, ((self.now() - self.start) / steps).tolist(), strict=True))
            row["peak"] = resident_megabytes("VmHWM")
            print(json.dumps(row), flush=True)

    sizes = {"num_layers": layers, "hidden_dim": width, "intermediate_dim": 4 * width}
    encoder = BertEncoder(30522, num_heads=width // 32, **sizes)
    model = keras.Model(encoder.input, keras.layers.Dense(8)(encoder.output))
    model.compile(keras.optimizers.AdamW(1e-4), "mse")
    model.optimizer.build(model.trainable_variables)
    callbacks = [Epochs(), *[KeepFreedMemory()] * (name != "plain")]
    model.fit(Batches(), epochs=10**6, callbacks=callbacks, verbose=0, shuffle=False)
    print(json.dumps({"left": resident_megabytes("VmRSS")}), flush=True)


def compare(onednn, arguments):
    """Rows of the table, for TensorFlow with or without oneDNN."""
    switches = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": str(int(onednn))}
    sizes = [arguments.layers, arguments.width, arguments.batch, arguments.length, arguments.steps]
    children = {
        name: subprocess.Popen(
            [sys.executable, str(Path(__file__)), "--side", name, *map(str, sizes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=switches,
        )
        for name in SIDES
    }
    found = {name: [] for name in SIDES}
    order = list(SIDES)
    for epoch in range(arguments.rounds + 1):
        for name in order:
            children[name].stdin.write("\n")
            children[name].stdin.flush()
            row = json.loads(children[name].stdout.readline())
            if epoch:  # the first one traces
                found[name].append(row)
        order.reverse()
    left = {}
    for name, child in children.items():
        child.stdin.close()
        child.stdout.readline()  # the epoch that is stopped
        left[name] = json.loads(child.stdout.readline())["left"]
        child.wait()
    for name in SIDES:
        medians = [statistics.median(row[key] for row in found[name]) for key in ROW]
        rounds = zip(found["plain"], found[name], strict=True)
        faster = statistics.median(a["processor"] / b["processor"] for a, b in rounds)
        peak = found[name][-1]["peak"]
        yield [
            "yes" if onednn else "no",
            name,
            *(f"{value:.3f}" for value in medians[:3]),
            f"{medians[3]:.0f}",
            f"{faster:.2f}",
            f"{peak:.0f} ({peak / found['plain'][-1]['peak']:.2f})",
            f"{left[name]:.0f}",
        ]


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each side")
    parser.add_argument("--steps", type=int, default=6, help="of an epoch")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=48)
    arguments = parser.parse_args()
    if BACKEND != "tensorflow":
        parser.error(f"Keras must run on TensorFlow. Received: KERAS_BACKEND={BACKEND}")
    rows = [row for onednn in (False, True) for row in compare(onednn, arguments)]
    size = f"{arguments.layers} layers, width {arguments.width}"
    columns = ["oneDNN", "fit", "s a step", "processor, s", "kernel, s", "faults a step"]
    columns += ["times faster (processor)", "peak MB (of plain)", "MB after"]
    title = f"A training step in `fit`: {size}, b={arguments.batch}, n={arguments.length}"
    print_table(title, columns, rows, arguments.rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        side(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        main()
