"""How fast are our encoders beside those of bert4keras, KerasHub and transformers?

A training step (forward, mean square, backward, Adam), inference, and a step in Keras' `fit` on a
Python data set, sizes of MiniLM and of BERT.
Every side is a process of its own (encoder_side.py); one at a time runs a step.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from timing import BACKEND, print_table

FOLDER = Path(__file__).parent
# bert4keras and its Keras 2: see tests/legacy/requirements.txt.
LEGACY = FOLDER.parent / "build" / "legacy"
LEGACY_SWITCHES = {"PYTHONPATH": str(LEGACY), "TF_USE_LEGACY_KERAS": "1", "TF_KERAS": "1"}
# Ours, and the sides that compute the same. KerasHub's activation is always the approximation.
COMPARISONS = {
    "BertEncoder": ["bert4keras/BERT", "transformers/BertModel", "BertEncoder/bfloat16"],
    "BertEncoder/gelu_tanh": ["KerasHub/BertBackbone"],
    "RoFormerEncoder": ["bert4keras/RoFormer"],
}
OTHERS = [side for sides in COMPARISONS.values() for side in sides]
TASKS = ["training", "inference", "fit"]
HEADS = 12


class Side:
    """A process that compiles its jobs and then runs one where it is told to.

    Args:
        name: one of encoder_side.py.
        jobs: list of a task and a mode each.
        sizes: dict, arguments of our encoders.
        shape: dict of `batch` and `length`.
    """

    def __init__(self, name, jobs, sizes, shape):
        arguments = {"side": name, "jobs": jobs, "sizes": sizes, "shape": shape}
        switches = LEGACY_SWITCHES if name.startswith("bert4keras") else {}
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(FOLDER / "encoder_side.py"), json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **switches},
        )

    def answer(self):
        """What the process prints next."""
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"The process of {self.name} ended, status {self.process.wait()}.")
        return json.loads(line)

    def time(self, job):
        """Seconds of one step of a job, by its number."""
        self.process.stdin.write(f"{job}\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self):
        """Ends the process, which reads until its input is closed."""
        self.process.communicate()


def compare(names, jobs, sizes, shape, rounds):
    """Times the sides in turn, in every other round in reverse.

    Returns:
        For each side that is installed, by name: what it says about itself, and `seconds`, a list
        for each job, empty where the side has none.
    """
    started = [Side(name, jobs, sizes, shape) for name in names]
    about = {side.name: side.answer() for side in started}
    for side in started:
        if "missing" in about[side.name]:
            print(f"{side.name} is left out, not installed: {about[side.name]['missing']}.")
            del about[side.name]
            side.end()
    sides = [side for side in started if side.name in about]
    if len({about[name]["weights"] for name in about}) > 1:
        counts = {name: about[name]["weights"] for name in about}
        raise ValueError(f"The sides must have as many weights to train. Received: {counts}")
    for side in sides:
        about[side.name]["seconds"] = [[] for _ in jobs]
    for _ in range(rounds):
        for job in range(len(jobs)):
            for side in sides:
                if about[side.name]["can"][job]:
                    about[side.name]["seconds"][job].append(side.time(job))
        sides.reverse()
    for side in sides:
        side.end()
    return about


def table_rows(ours, about, jobs):
    """A row for each side and mode: times, their ratios to ours, and memory."""
    for mode in dict.fromkeys(mode for _, mode in jobs):
        for name, side in about.items():
            cells = []
            for task in dict.fromkeys(task for task, _ in jobs):
                job = jobs.index([task, mode])
                seconds, reference = side["seconds"][job], about[ours]["seconds"][job]
                if not seconds:
                    cells += [""] * 3
                    continue
                # Each round has its own ratio: what disturbs a round disturbs both.
                ratios = [a / b for a, b in zip(seconds, reference, strict=True)]
                cells += [f"{statistics.median(seconds) * 1e3:.0f}"]
                megabytes = side["megabytes"][job]
                cells += [f"{statistics.median(ratios):.2f}"]
                cells += ["" if megabytes is None else f"{megabytes:.0f}"]
            if any(cells):
                yield [name, mode, *cells]


def bfloat16_units():
    """The processor's own instructions for bfloat16."""
    with open("/proc/cpuinfo") as file:
        flags = next((line for line in file if line.startswith("flags")), "").split()
    return [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--layers-width", nargs="+", default=["6x384", "12x768"], metavar="LxW")
    parser.add_argument("--sides", nargs="+", choices=OTHERS, default=OTHERS, metavar="SIDE")
    parser.add_argument("--modes", nargs="+", choices=["graph", "XLA"], default=["graph", "XLA"])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, metavar="TASK")
    parser.add_argument("--batch", type=int, help="default: 16 for a width up to 384, else 4")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=30522)
    arguments = parser.parse_args()
    if BACKEND != "tensorflow":
        parser.error(f"Keras must run on TensorFlow. Received: KERAS_BACKEND={BACKEND}")
    jobs = [[task, mode] for mode in arguments.modes for task in arguments.tasks]
    versions = {}
    for layers, width in (map(int, size.split("x")) for size in arguments.layers_width):
        sizes = {
            "vocabulary_size": arguments.vocabulary,
            "num_layers": layers,
            "num_heads": HEADS,
            "hidden_dim": width,
            "intermediate_dim": 4 * width,
        }
        shape = {
            "batch": arguments.batch or (16 if width <= 384 else 4),
            "length": arguments.length,
        }
        rows = []
        for ours, others in COMPARISONS.items():
            others = [name for name in others if name in arguments.sides]
            if others:
                about = compare([ours, *others], jobs, sizes, shape, arguments.rounds)
                rows += table_rows(ours, about, jobs)
                for side in about.values():
                    versions.update(side["versions"])
        title = f"{layers} layers, width {width}, b={shape['batch']}, n={shape['length']}"
        columns = ["side", "run as"]
        for task in arguments.tasks:
            columns += [f"{task}, ms", "times ours", "MB"]
        print_table(title, columns, rows, arguments.rounds)
    print(", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    print(f"Units for bfloat16: {', '.join(bfloat16_units()) or 'none'}.")


if __name__ == "__main__":
    main()
