"""Weights in the files that programs with bert4keras and Keras 2 write."""

import re
from pathlib import Path

from keras_ext.bert4keras.legacy_hdf5 import read_legacy_hdf5, write_legacy_hdf5
from keras_ext.bert4keras.tf_format import read_tf_format
from keras_ext.bert4keras.weight_order import find_weights, layers_with_weights, weight_order
from keras_ext.checkpoints.assign import assign_weights, check_patterns, collect_weights
from keras_ext.checkpoints.name_lookup import OPTIONAL


def load_bert4keras_weights(model, path, mapping=None, allow_missing=(), allow_unused=()):
    """Fills a model from what bert4keras' `model.save_weights` or `model.save` wrote.

    Layers are found by their names; in a layer, weights by what they are (see `find_weights`).
    Frozen layers are loaded, too. Strict: a weight that is missing, left over or of another shape
    is an error that lists all of them, and nothing is loaded. Allowed to be left over are heads of
    bert4keras, and the segments' table, of which the model has no layer.

    Args:
        model: encoder, a model of `build_transformer_model`, or a model with such parts. Models
            inside it are searched, too.
        path: HDF5 file of any name; or the path without `.index` of a checkpoint in TensorFlow's
            format, which tf.keras writes where the name has no suffix `.h5`.
        mapping: dict from names of layers in the file to those in the model, for heads that Keras
            named: `{"dense_72": "head"}`. None: all names are the same.
        allow_missing: tuple of `fnmatch` patterns of names ("layer/attribute") that may lack.
        allow_unused: tuple of `fnmatch` patterns, more names that may be left over.

    Returns:
        `LoadReport` of names "layer/attribute", such as
        "Transformer-0-MultiHeadSelfAttention/query_dense.kernel"; what is unused is called as in
        the file.

    Raises:
        ValueError: if the file is of another kind (saying which), is damaged or cut off, or does
            not fit the model (naming the weights and layers on both sides); for an encoder
            with another `residual` than "post", which bert4keras does not have.

    Example:

    ```python
    encoder = RoFormerEncoder(50000, 12, 12, 768, 3072)
    report = load_bert4keras_weights(encoder, "best_model.weights")
    ```
    """
    path = Path(path)
    index = path if path.suffix == ".index" else path.with_name(f"{path.name}.index")
    if index.is_file() and (index == path or not path.exists()):
        stored = read_tf_format(path)
    else:
        stored = read_legacy_hdf5(path).layers
    check_patterns(allow_missing=allow_missing, allow_unused=allow_unused)
    heads = [f"{name}/*" for name in set(OPTIONAL) - layers_with_weights(model).keys()]
    return fill_layers(model, stored, mapping, allow_missing, (*heads, *allow_unused))


def save_bert4keras_weights(model, path):
    """Writes the weights of a model so that bert4keras reads them with `model.load_weights(path)`.

    There, `by_name=True` works, too, and asks less: without it, the model there must have the same
    layers in the same order. A `LayerNormalization` is written as bert4keras' own, beta first.

    Args:
        model: encoder, or a model with such parts; those of models inside it come in their place.
        path: the file to write; it ends in `.h5` (not `.weights.h5`) or `.hdf5`, by which Keras 2
            knows the format.

    Raises:
        ValueError: for another suffix; if bert4keras has no counterpart of a layer with weights, or
            of the `residual` of an encoder.

    Example:

    ```python
    save_bert4keras_weights(encoder, "encoder.h5")
    ```
    """
    if not str(path).endswith((".h5", ".hdf5")) or str(path).endswith(".weights.h5"):
        raise ValueError(
            "Keras 2 takes only names in .h5 or .hdf5 for HDF5, and .weights.h5 for another format. "
            f"Received: path={str(path)!r}"
        )
    layers = {name: weight_order(layer) for name, layer in layers_with_weights(model).items()}
    if "NSP-Proba" in layers and "MLM-Bias" in layers:
        # Our softmax is a layer of its own behind it; in bert4keras it is one of the last layers.
        layers["NSP-Proba"] = layers.pop("NSP-Proba")
    table = [
        row._replace(name=f"{name}/{row.name}") for name, rows in layers.items() for row in rows
    ]
    values = collect_weights(model, table)
    write_legacy_hdf5(
        path,
        {
            name: {row.name: values[f"{name}/{row.name}"] for row in rows}
            for name, rows in layers.items()
        },
    )


def fill_layers(model, stored, mapping=None, allow_missing=(), allow_unused=()):
    """Fills a model from weights by layer, all or nothing.

    Args:
        model: `keras.Model`.
        stored: dict from names of layers to dicts from names of weights to arrays. A model inside
            a model may be one layer here, whose weights' names begin with those of its layers.
        mapping: as for `load_bert4keras_weights`.
        allow_missing: likewise.
        allow_unused: likewise.

    Returns:
        `LoadReport`.

    Raises:
        ValueError: naming every weight that does not fit.
    """
    layers = layers_with_weights(model)
    stored = _by_layer(stored, layers, mapping or {})
    table, values, faults = [], {}, []
    for name, layer in layers.items():
        try:
            rows = weight_order(layer)
            found = find_weights(rows, stored[name]) if name in stored else {}
        except ValueError as error:
            if name in stored:
                faults.append(f"{name}: {error}. The file has {_shapes(stored[name])}")
            continue
        table += [row._replace(name=f"{name}/{row.attribute}") for row in rows]
        ours = {there: attribute for attribute, there in found.items()}
        for there, value in stored.get(name, {}).items():
            values[f"{name}/{ours.get(there, there)}"] = value
    if faults:
        raise ValueError(
            "The file does not fit the model; nothing was loaded.\n  " + "\n  ".join(faults)
        )
    foreign = {name: weights for name, weights in stored.items() if name not in layers}
    for name, weights in foreign.items():
        values.update({f"{name}/{there}": value for there, value in weights.items()})
    try:
        return assign_weights(model, table, values, tuple(allow_missing), tuple(allow_unused))
    except ValueError as error:
        absent = {
            name: {weight.path.rpartition(f"{name}/")[2]: weight for weight in layer.weights}
            for name, layer in layers.items()
            if name not in stored
        }
        raise ValueError(f"{error}{_advice(foreign, absent)}") from None


def _by_layer(stored, layers, mapping):
    """The weights under the names of the model's layers; models inside the file are opened."""
    names, seen, opened = {*layers, *mapping}, set(), {}
    # The parts of a layer have such names, too; that they are layers of a model, mapping may say.
    unsure = {x for x in layers if re.fullmatch(r"(dense|scale_offset)(_\d+)?", x)} - {*mapping}
    inside = names - unsure - {*stored}
    for group, weights in stored.items():
        inner = {}
        for weight, value in weights.items():
            layer, _, rest = weight.partition("/")
            inner.setdefault(layer, {})[rest] = value
        parts = inner if group not in names and inner.keys() & inside else {group: weights}
        seen.update(parts)
        for name, part in parts.items():
            if opened.setdefault(mapping.get(name, name), part) is not part:
                raise ValueError(
                    "Two layers of the file have one name in the model. "
                    f"Received: layer={mapping.get(name, name)!r}, {mapping=}"
                )
    wrong = [f"{old!r}, which the file lacks" for old in mapping if old not in seen]
    wrong += [f"{new!r}, which the model lacks" for new in mapping.values() if new not in layers]
    if wrong:
        raise ValueError(
            "Expected a mapping from layers of the file to layers of the model with weights; it "
            f"has {'; '.join(wrong)}. Received: {mapping=}"
        )
    return opened


def _shapes(weights):
    return ", ".join(f"{name} {tuple(value.shape)}" for name, value in weights.items())


def _advice(foreign, absent):
    """What to do about layers that only the file, or only the model has."""
    if not foreign or not absent:
        return ""
    lines = [f"only in the file: {name} ({_shapes(part)})" for name, part in foreign.items()]
    lines += [f"only in the model: {name} ({_shapes(part)})" for name, part in absent.items()]
    return (
        "\nLayers are matched by their names. If one was only called otherwise, pass "
        "mapping={name in the file: name in the model}.\n  " + "\n  ".join(lines)
    )
