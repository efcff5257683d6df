"""The HDF5 layout of Keras 2: a group for each layer, which lists its weights in order."""

import io
import re
from typing import NamedTuple

import h5py
import numpy as np

from keras_ext.checkpoints.hdf5_file import check_datasets, find_item, listed_names, open_hdf5
from keras_ext.files.replaced_files import replaced_file
from keras_ext.files.text_file import load_json

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
        ValueError: if the file is of another kind (saying which, and what to do), is cut off,
            lists weights that it does not hold or takes them from other files.

    Example:

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "head.h5")
    >>> write_legacy_hdf5(path, {"head": {"bias": np.ones(2)}})
    >>> read_legacy_hdf5(path).layers
    {'head': {'bias': array([1., 1.], dtype=float32)}}
    """
    with open_hdf5(path) as file:
        root = find_item(file, "model_weights") or file
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
        datasets = {name: _datasets(root, name, lost) for name in names}
        check_datasets(file, [item for part in datasets.values() for item in part.values()])
        for name, part in datasets.items():
            weights = {weight: _value(item, lost) for weight, item in part.items()}
            if weights:
                layers[name] = weights
        if lost:
            raise ValueError(
                "The file lists weights that it does not hold, or that cannot be read: "
                f"{', '.join(lost)}. Received: path={str(path)!r}"
            )
        training = _json(file, "training_config", path) or {}
        if file.get("optimizer_weights", getlink=True) is not None:
            training["optimizer_weights"] = True
        return LegacyFile(layers, _json(file, "model_config", path), training)


def _datasets(root, layer, lost):
    """The datasets of a layer by name of the weight; what is none is added to `lost`."""
    group, found = find_item(root, layer), {}
    if not isinstance(group, h5py.Group):
        lost.append(layer)
        return found
    for name in listed_names(group, "weight_names") or ():
        item, short = find_item(group, name), _without_layer(layer, name)
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            lost.append(f"{layer}: {name}")
        else:
            found[name if short in found else short] = item
    return found


def _value(dataset, lost):
    try:
        return np.asarray(dataset[()])
    except (OSError, RuntimeError):
        lost.append(dataset.name)
        return None


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
        value = load_json(file.attrs[name], f"The attribute {name}")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{error}. Received: path={str(path)!r}") from None
    if not isinstance(value, dict | None):
        raise ValueError(f"The attribute {name} is no JSON object. Received: path={str(path)!r}")
    return value


def write_legacy_hdf5(path, layers):
    """Writes an HDF5 file of weights as Keras 2 does, which `model.load_weights` reads there.

    Args:
        path: the file; replaced if it exists, once the new one is whole. Folders are made.
        layers: dict from names of layers to dicts from names of weights (without the layer's) to
            arrays, both in the order of the file. The arrays become float32.

    Raises:
        OSError: if it cannot be written; a file that was there is as it was.

    Example:

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "head.h5")
    >>> write_legacy_hdf5(path, {"head": {"kernel": np.ones((3, 2)), "bias": np.ones(2)}})
    """
    content = io.BytesIO()  # on a full disk HDF5 fails to close its file, and crashes at exit
    with h5py.File(content, "w") as file:
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = VERSION.encode()
        _set_attribute(file, "layer_names", layers)
        for layer, weights in layers.items():
            group = file.create_group(layer)
            _set_attribute(group, "weight_names", [f"{layer}/{name}:0" for name in weights])
            for name, value in weights.items():
                group[f"{layer}/{name}:0"] = np.asarray(value, "float32")
    with replaced_file(path) as new:
        new.write_bytes(content.getbuffer())


def _set_attribute(group, name, values):
    values = np.array([value.encode() for value in values])
    if values.nbytes <= LONGEST_ATTRIBUTE:
        group.attrs[name] = values
        return
    step = LONGEST_ATTRIBUTE // values.itemsize
    for i in range(0, len(values), step):
        group.attrs[f"{name}{i // step}"] = values[i : i + step]
