"""How fast are our encoders beside those of bert4keras, KerasHub and transformers?

A training step (forward, mean square, backward, Adam), inference, and a step in Keras' `fit` on a
Python data set, sizes of MiniLM and of BERT.
Every side is a process of its own (encoder_side.py); one at a time runs a step.
"""

import argparse
import statistics

from sides import FOLDER, Side, compare, ratio
from timing import BACKEND, print_table

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


def compare_steps(names, jobs, sizes, shape, rounds):
    """Times steps of the sides, which must have as many weights: see `sides.compare`."""
    arguments = {"jobs": jobs, "sizes": sizes, "shape": shape}
    started = [
        Side(
            "encoder_side.py",
            name,
            {"side": name, **arguments},
            LEGACY_SWITCHES if name.startswith("bert4keras") else {},
        )
        for name in names
    ]
    about = compare(started, jobs, rounds)
    counts = {name: side["weights"] for name, side in about.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"The sides must have as many weights to train. Received: {counts}")
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
                cells += [f"{statistics.median(seconds) * 1e3:.0f}"]
                megabytes = side["megabytes"][job]
                cells += [f"{ratio(seconds, reference):.2f}"]
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
                about = compare_steps([ours, *others], jobs, sizes, shape, arguments.rounds)
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
