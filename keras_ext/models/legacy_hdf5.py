"""The HDF5 layout of Keras 2: a group for each layer, which lists its weights in order."""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from keras_ext.models.hdf5_file import listed_names, open_hdf5

# A list longer than this, in bytes, is split into name0, name1, ...: an HDF5 header ends at 64 KB.
LONGEST_ATTRIBUTE = 64512
VERSION = "2.3.1"


class LegacyFile(NamedTuple):
    """What an HDF5 file of Keras 2 holds.

    Attributes:
        layers: dict from names of layers to dicts from names of weights (without the layer's) to
            arrays, both in the order of the file. Layers without weights are left out.
        config: dict, the architecture; None in a file of weights only.
        training: dict of what the model was compiled with, empty if it was not; with the key
            "optimizer_weights" if the file holds the state of the optimizer.

    Example:

    >>> LegacyFile({"head": {"bias": np.zeros(2)}}, None, {}).layers["head"]
    {'bias': array([0., 0.])}
    """

    layers: dict
    config: dict | None
    training: dict


def read_legacy_hdf5(path):
    """Reads an HDF5 file that Keras 2 wrote by `model.save` or `model.save_weights`.

    Args:
        path: the file, of any name.

    Returns:
        `LegacyFile`.

    Raises:
        ValueError: if the file is of another kind (saying which, and what to do), is cut off
            (naming the tensors that are not whole) or lists weights that it does not hold.

    Example:

    >>> import tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "head.h5")
    >>> write_legacy_hdf5(path, {"head": {"bias": np.ones(2)}})
    >>> read_legacy_hdf5(path).layers
    {'head': {'bias': array([1., 1.], dtype=float32)}}
    """
    with open_hdf5(path) as file:
        root = file.get("model_weights", file)
        names = listed_names(root, "layer_names")
        if names is None:
            raise ValueError(
                "The HDF5 file does not list its layers, so it is not of Keras 2: the newer "
                ".weights.h5 tells layers apart by class and number only. If tf.keras wrote it, "
                "load it there and save it with model.save_weights('name.h5'), without '.weights' "
                "in the name; a file of Keras 3 is read by model.load_weights. "
                f"Received: path={str(path)!r}"
            )
        layers, lost = {}, []
        for name in names:
            weights = _weights(root, name, lost)
            if weights:
                layers[name] = weights
        if lost:
            raise ValueError(
                "The file lists weights that it does not hold, or that cannot be read: "
                f"{', '.join(lost)}. Received: path={str(path)!r}"
            )
        training = _json(file, "training_config", path) or {}
        if "optimizer_weights" in file:
            training["optimizer_weights"] = True
        return LegacyFile(layers, _json(file, "model_config", path), training)


def _weights(root, layer, lost):
    """The weights of a layer by name; what cannot be read is added to `lost`."""
    if layer not in root:
        lost.append(layer)
        return {}
    weights = {}
    for name in listed_names(root[layer], "weight_names") or ():
        try:
            weights[_without_layer(layer, name)] = root[layer][name][()]
        except (KeyError, OSError, RuntimeError):
            lost.append(f"{layer}: {name}")
    return weights


def _without_layer(layer, name):
    """ "dense/kernel" of "layer/dense/kernel:0"; names of other layers, inside a model, stay."""
    parts = name.partition(":")[0].split("/")
    for i, part in enumerate(parts[:-1]):
        # TensorFlow 1 numbers a name that it has seen before.
        if re.fullmatch(rf"{re.escape(layer)}(_\d+)?", part):
            return "/".join(parts[i + 1 :])
    return "/".join(parts)


def _json(file, name, path):
    if name not in file.attrs:
        return None
    try:
        return json.loads(file.attrs[name])
    except ValueError as error:
        raise ValueError(
            f"The attribute {name} is not JSON: {error}. Received: path={str(path)!r}"
        ) from error


def write_legacy_hdf5(path, layers):
    """Writes an HDF5 file of weights as Keras 2 does, which `model.load_weights` reads there.

    Args:
        path: the file; replaced if it exists, once all is written.
        layers: dict from names of layers to dicts from names of weights (without the layer's) to
            arrays, both in the order of the file. The arrays become float32.

    Example:

    >>> path = os.path.join(tempfile.mkdtemp(), "head.h5")
    >>> write_legacy_hdf5(path, {"head": {"kernel": np.ones((3, 2)), "bias": np.ones(2)}})
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / "part.h5"
        with h5py.File(part, "w") as file:
            file.attrs["backend"] = b"tensorflow"
            file.attrs["keras_version"] = VERSION.encode()
            _set_attribute(file, "layer_names", layers)
            datasets = []
            for layer, weights in layers.items():
                group = file.create_group(layer)
                names = [f"{layer}/{name}:0" for name in weights]
                _set_attribute(group, "weight_names", names)
                for name, value in zip(names, weights.values(), strict=True):
                    value = np.asarray(value, "float32")
                    datasets.append((group.create_dataset(name, value.shape, "float32"), value))
            # The values come behind all names, so that a file that is cut off still has those.
            for dataset, value in datasets:
                dataset[...] = value
        os.replace(part, path)


def _set_attribute(group, name, values):
    values = np.array([value.encode() for value in values])
    if values.nbytes <= LONGEST_ATTRIBUTE:
        group.attrs[name] = values
        return
    step = LONGEST_ATTRIBUTE // values.itemsize
    for i in range(0, len(values), step):
        group.attrs[f"{name}{i // step}"] = values[i : i + step]
