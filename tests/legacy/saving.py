"""Random weights, and what the folder of a case holds."""

import json
import zlib

import numpy as np
from bert4keras.backend import keras


def generator(name):
    """Random numbers that depend on the name of a case only."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def draw_weights(model, rng, keep=()):
    """Gives every weight random values: no 0, no 1, no two alike.

    Args:
        model: A Keras model.
        rng: NumPy generator.
        keep: Names of layers that keep their values.
    """
    for weight in model.weights:
        kind = weight.name.split("/")[-1].split(":")[0]
        scale = {"kernel": 1.3 / np.sqrt(weight.shape[0]), "embeddings": 0.7}.get(kind, 0.3)
        if weight.name.split("/")[0] not in keep:
            weight.assign(rng.normal(size=weight.shape, scale=scale) + (kind == "gamma"))


def run(model, arrays, outputs):
    """What tensors of a model are for some inputs: a list of arrays; dropout is off."""
    values = list(arrays.values())
    model = keras.models.Model(model.inputs, outputs)
    results = model(values if len(values) > 1 else values[0], training=False)
    return [np.array(x) for x in (results if isinstance(results, list) else [results])]


def save_model(folder, model, arrays, **tensors):
    """Saves a model in the three formats of Keras 2, its inputs and its outputs.

    Args:
        folder: Folder of the case.
        model: A Keras model.
        arrays: Its inputs, in order.
        **tensors: Inner tensors of the model whose values are saved, too.
    """
    model.save_weights(str(folder / "weights.h5"), save_format="h5")
    model.save_weights(str(folder / "tf_format.weights"), save_format="tf")
    model.save(str(folder / "model.h5"), save_format="h5")
    mask = arrays["token_ids"] > 0
    mask[:, 0] = True
    tensors = {f"output_{i}": output for i, output in enumerate(model.outputs)} | tensors
    values = run(model, arrays, list(tensors.values()))
    np.savez(folder / "data.npz", **arrays, mask=mask, **dict(zip(tensors, values, strict=True)))


def write_case(folder, **facts):
    """Writes what the tests must know about a case."""
    text = json.dumps({**facts, "name": folder.name}, indent=2)
    (folder / "case.json").write_text(text + "\n", "utf-8")
