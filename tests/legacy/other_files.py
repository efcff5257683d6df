"""Files that other versions of Keras and of bert4keras write, made out of those of this version."""

import collections
import json
import shutil

import h5py
import numpy as np
from saving import write_case

# Keys of a config that Keras 2.3 did not write.
LATER_KEYS = {"module", "registered_name", "output_shape_module", "optional", "ragged"}


def write_old(folder, source, rewrite):
    """Writes a case whose files are those of another case, rewritten."""
    folder.mkdir()
    for name in ("weights.h5", "model.h5", "data.npz"):
        shutil.copy(source / name, folder / name)
    facts = json.loads((source / "case.json").read_text("utf-8"))
    write_case(folder, **{**facts, "checkpoint": False})
    for name in ("weights.h5", "model.h5"):
        with h5py.File(folder / name, "r+") as file:
            group = file["model_weights"] if "model_weights" in file else file
            rewrite(file, group, [group[layer] for layer in group.attrs["layer_names"]])


def order_before_0_11_4(file, group, layers):
    """Lists the output of a gated attention unit right behind its input, as old versions did."""
    for layer in layers:
        names = list(layer.attrs["weight_names"])
        if any("/scale_offset/" in name for name in names):
            dense = sorted((name for name in names if "/dense" in name), key=dense_number)
            layer.attrs["weight_names"] = dense + [name for name in names if name not in dense]


def dense_number(name):
    """0 for `unit/dense/kernel:0`, 1 for `unit/dense_1/kernel:0`."""
    return int(name.split("/")[-2].partition("_")[2] or 0)


def as_keras_2_3(file, group, layers):
    """Names as bytes, sub-layers numbered through the whole model, configs as short as in 2019."""
    numbers = collections.Counter()
    for layer in layers:
        number_sublayers(layer, numbers)
    group.attrs["layer_names"] = np.array(group.attrs["layer_names"], "S")
    del group["top_level_model_weights"]
    for owner in (file, group):
        owner.attrs["keras_version"], owner.attrs["backend"] = b"2.3.1", b"tensorflow"
    for name in ("model_config", "training_config"):
        if name in file.attrs:
            file.attrs[name] = json.dumps(old_config(json.loads(file.attrs[name]))).encode()


def number_sublayers(layer, numbers):
    """Renames `name/dense/kernel:0` to `name/dense_7/kernel:0` and so on, in the same order.

    Args:
        layer: Group of a layer, or of a whole model that was called as a layer.
        numbers: Counter of the sub-layers so far, by their kind.
    """
    values = {name: layer[name][...] for name in layer.attrs["weight_names"]}
    for key in list(layer):
        del layer[key]
    new_names, sublayers = [], {}
    for name, value in values.items():
        owner, _, weight = name.rpartition("/")
        if "/" in owner and owner not in sublayers:
            outer, _, sublayer = owner.rpartition("/")
            kind = sublayer.rstrip("0123456789").rstrip("_")
            numbers[kind] += 1
            sublayers[owner] = f"{outer}/{kind}_{numbers[kind]}"
        new_names.append(f"{sublayers.get(owner, owner)}/{weight}")
        layer[new_names[-1]] = value
    if new_names:
        layer.attrs["weight_names"] = np.array(new_names, "S")


def old_config(value):
    """A config without what later versions added to it."""
    if isinstance(value, list):
        return [old_config(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("class_name")
    if kind in ("function", "method"):
        return value["config"]
    if kind == "GlorotUniform":
        scaling = {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None}
        return {"class_name": "VarianceScaling", "config": scaling}
    old = {key: old_config(item) for key, item in value.items() if key not in LATER_KEYS}
    return {**old, "class_name": "Model"} if kind == "Functional" else old
