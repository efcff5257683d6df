"""Putting the tensors of a checkpoint into a model, and back, without losing one silently."""

from fnmatch import fnmatchcase
from operator import attrgetter
from typing import NamedTuple

import keras
import ml_dtypes
import numpy as np


class WeightName(NamedTuple):
    """One row of a name table: a weight of a model, and what a file calls it.

    Attributes:
        layer: name of the layer in the model ("{i}" in the table of an encoder is the number of the
            block); or the layer itself, such as one inside another model.
        attribute: path of the variable in the layer, such as "query_dense.kernel".
        name: name of the tensor in the file.
        transpose: bool, whether the file holds the transposed matrix.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="head")])
    >>> tuple(WeightName("head", "kernel", "classifier.weight", True).variable(model).shape)
    (3, 2)
    """

    layer: str | keras.layers.Layer
    attribute: str
    name: str
    transpose: bool = False

    def variable(self, model=None):
        """The variable that this row names; `model` is that with the layer of this name."""
        layer = model.get_layer(self.layer) if isinstance(self.layer, str) else self.layer
        return attrgetter(self.attribute)(layer)

    def exists(self, model=None):
        """Whether there is such a layer, and it has the variable."""
        try:
            return self.variable(model) is not None
        except (AttributeError, ValueError):
            return False


class LoadReport(NamedTuple):
    """What became of each name: tuples of names `loaded`, `missing` and `unused`.

    Example:

    >>> LoadReport(loaded=("a",), missing=(), unused=("b",)).unused
    ('b',)
    """

    loaded: tuple
    missing: tuple
    unused: tuple


def assign_weights(model, table, values, allow_missing=(), allow_unused=()):
    """Puts the tensors of a checkpoint into the variables of a model, all or nothing.

    Frozen layers are loaded, too. Everything is checked before anything is assigned. A weight of
    the model that `table` does not name is missing, under its path in the model. Weights that share
    a name get the same tensor.

    Args:
        model: `keras.Model` with the layers that `table` names.
        table: list of `WeightName`, one for each weight of the model.
        values: dict from names of the checkpoint to arrays.
        allow_missing: tuple of `fnmatch` patterns of names that may lack in `values`.
        allow_unused: tuple of `fnmatch` patterns of names that may lack in `table`.

    Returns:
        `LoadReport` of checkpoint names.

    Raises:
        ValueError: listing every name that is missing, unused, of another shape, of a dtype that
            does not hold weights (see `value_faults`), or with a value that is not finite; for one
            str in place of a tuple of patterns.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="score")])
    >>> table = [
    ...     WeightName("score", "kernel", "head.weight", transpose=True),
    ...     WeightName("score", "bias", "head.bias"),
    ... ]
    >>> values = {"head.weight": np.ones((1, 2)), "head.bias": np.ones(1), "step": np.ones(())}
    >>> assign_weights(model, table, values, allow_unused=("step",))
    LoadReport(loaded=('head.bias', 'head.weight'), missing=(), unused=('step',))
    """
    check_patterns(allow_missing=allow_missing, allow_unused=allow_unused)
    variables = [(row, row.variable(model)) for row in table]
    unnamed = _unnamed(model, variables)
    found = [(row, variable) for row, variable in variables if row.name in values]
    names = {row.name for row in table}
    missing = sorted(names - set(values) | unnamed)
    unused = sorted(set(values) - names)
    faults = [f"missing: {name}" for name in missing if not matches(name, allow_missing)]
    faults += [f"unused: {name}" for name in unused if not matches(name, allow_unused)]
    for row, variable in found:
        expected = tuple(variable.shape)[:: -1 if row.transpose else 1]
        if tuple(values[row.name].shape) != expected:
            faults.append(
                f"shape: {row.name}, expected {expected}, found {tuple(values[row.name].shape)}"
            )
        faults += value_faults(row.name, values[row.name], variable.dtype)
    if faults:
        raise misfit(faults, model.name)
    for row, variable in found:
        variable.assign(values[row.name].T if row.transpose else values[row.name])
    loaded = sorted({row.name for row, _ in found})
    return LoadReport(tuple(loaded), tuple(missing), tuple(unused))


def value_faults(name, value, dtype):
    """What keeps an array from being a weight.

    Integers, and floats of 8 bits, stand for weights that were divided by a scale, which is kept
    elsewhere or not at all.

    Args:
        name: of the tensor, for the message.
        value: array.
        dtype: str, the dtype of the variable that is to hold it.

    Returns:
        List of str, empty if all is well.

    Example:

    >>> value_faults("head.bias", np.array([1.0, np.nan, 1e6]), "float16")
    ['values: head.bias, 2 of 3 are not finite in float16']
    >>> value_faults("head.bias", np.zeros(3, "int8"), "float32")
    ['dtype: head.bias, expected floats, found int8; quantised weights need their scale, which is \
not known here']
    """
    if "float" not in value.dtype.name or value.dtype.itemsize < 2:
        packed = value.dtype.itemsize == 1 and value.dtype != bool
        advice = "; quantised weights need their scale, which is not known here" if packed else ""
        return [f"dtype: {name}, expected floats, found {value.dtype.name}{advice}"]
    most = float(ml_dtypes.finfo(dtype).max)
    # The extremes are NaN if a value is; unlike `isfinite`, they take no memory.
    if not value.size or (float(value.max()) <= most and float(value.min()) >= -most):
        return []
    with np.errstate(over="ignore"):
        bad = value.size - np.count_nonzero(np.isfinite(value.astype(dtype)))
    return [f"values: {name}, {bad} of {value.size} are not finite in {dtype}"]


def collect_weights(model, table, allow_missing=()):
    """The tensors of a checkpoint that holds the weights of a model: undoes `assign_weights`.

    Args:
        model: `keras.Model` with the layers that `table` names.
        table: list of `WeightName`, one for each weight of the model.
        allow_missing: tuple of `fnmatch` patterns of paths of weights that `table` may lack.

    Returns:
        Dict from names of the checkpoint to NumPy arrays. float16 and bfloat16 become float32.

    Raises:
        ValueError: listing every weight that `table` does not name, and every name that weights of
            different values share.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="score")])
    >>> table = [
    ...     WeightName("score", "kernel", "head.weight", transpose=True),
    ...     WeightName("score", "bias", "head.bias"),
    ... ]
    >>> collect_weights(model, table)["head.weight"].shape
    (2, 3)
    """
    variables = [(row, row.variable(model)) for row in table]
    unnamed = _unnamed(model, variables)
    faults = [f"without a name: {p}" for p in sorted(unnamed) if not matches(p, allow_missing)]
    values = {}
    for row, variable in variables:
        value = keras.ops.convert_to_numpy(variable)
        value = value.astype("float32") if value.dtype.itemsize < 4 else value
        value = np.ascontiguousarray(value.T if row.transpose else value)
        if not np.array_equal(values.setdefault(row.name, value), value, equal_nan=True):
            faults.append(f"shared by different weights: {row.name}")
    if faults:
        raise ValueError(
            "The format of the checkpoint cannot hold this model.\n  "
            + "\n  ".join(dict.fromkeys(faults))
            + f"\nReceived: model={model.name}"
        )
    return values


def check_patterns(**patterns):
    """Raises ValueError for a str, whose letters (such as "*") would count as patterns."""
    for name, value in patterns.items():
        if isinstance(value, str):
            raise ValueError(f"Expected a tuple of patterns. Received: {name}={value!r}")


def _unnamed(model, variables):
    named = {id(variable) for _, variable in variables}
    return {variable.path for variable in model.weights if id(variable) not in named}


def misfit(faults, model):
    """The error that a checkpoint does not fit the model of a name."""
    return ValueError(
        "The checkpoint does not fit the model; nothing was loaded.\n  "
        + "\n  ".join(faults)
        + "\nPatterns of names that may lack or be left over are given by `allow_missing` and "
        f"`allow_unused`. Received: {model=!s}"
    )


def matches(name, patterns):
    """Whether a name fits one of the `fnmatch` patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
