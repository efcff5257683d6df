"""Lets bert4keras load weights that we saved, and run: in a process of its own, as generate.py.

    python reload.py FOLDER_OF_CASES FOLDER_OF_OURS

For each `CASE.h5` of ours, writes the outputs of the model of that case, filled by the order of the
layers (`CASE-order.npz`) and by their names (`CASE-names.npz`).
"""

import sys
from pathlib import Path

import cases
import heads
import numpy as np
from encoders import build
from saving import run


def model_of(folder):
    """The model of a case, built anew: tf-keras 2.21 does not load what bert4keras saves with gelu."""
    if folder.name not in cases.ENCODERS:
        return getattr(heads, folder.name.replace("-", "_"))()
    case = cases.ENCODERS[folder.name]
    return build(case, folder / "config.json", **case.kwargs).model


if __name__ == "__main__":
    theirs, ours = map(Path, sys.argv[1:])
    for path in sorted(ours.glob("*.h5")):
        model = model_of(theirs / path.stem)
        data = np.load(theirs / path.stem / "data.npz")
        names = list(data)
        inputs = {name: data[name] for name in names[: names.index("mask")]}
        for key, by_name in (("order", False), ("names", True)):
            for weight in model.weights:
                weight.assign(np.full(weight.shape, 0.1))
            model.load_weights(str(path), by_name=by_name)
            np.savez(ours / f"{path.stem}-{key}.npz", *run(model, inputs, model.outputs))
