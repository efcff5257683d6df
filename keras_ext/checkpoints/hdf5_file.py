"""Reading HDF5 files that anybody may have written."""

import itertools
import os
import re
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from keras_ext.files.file_kind import HDF5, ZIP, file_kind, wrong_kind

ADVICE = {
    ZIP: "If it is a .keras file of tf.keras, load it there and save it with "
    "model.save('name.h5'). "
}
# Weights are hardly packed at all, and Keras packs none; HDF5's compression can make 1032 bytes
# of one, but only of blanks. What is small anyway may be what it likes.
MOST_PACKED, SMALL = 16, 2**26


@contextmanager
def open_hdf5(path):
    """Opens an HDF5 file for reading, told by its first bytes whatever its name.

    Args:
        path: the file.

    Returns:
        Context manager that gives the `h5py.File`.

    Raises:
        ValueError: if the path is no HDF5 file, saying what it is; if it is damaged or cut off.
    """
    if Path(path).is_dir():
        raise ValueError(
            "Expected an HDF5 file, but the path is a folder, perhaps a SavedModel; save the model "
            f"in the program that wrote it with model.save('name.h5'). Received: path={str(path)!r}"
        )
    kind = file_kind(path)
    if kind != HDF5:
        raise ValueError(ADVICE.get(kind, "") + wrong_kind(path, "an HDF5 file", kind))
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(_fault(Path(path), error)) from error
    with file:
        yield file


def find_item(group, name):
    """What a group holds under a name. Links to other names or files are not followed.

    Args:
        group: `h5py.Group`.
        name: str, a path in it.

    Returns:
        `h5py.Group` or `h5py.Dataset`; None if there is no such thing, or nothing whole.

    Raises:
        ValueError: if a link leads elsewhere.
    """
    for part in filter(None, name.split("/")):
        try:
            link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
            if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
                raise ValueError(
                    "The file takes values from other files, or by links, which is not done: "
                    f"{group.name.rstrip('/')}/{part}. Received: path={group.file.filename!r}"
                )
            group = None if link is None else group[part]
        except (KeyError, OSError, RuntimeError, TypeError):
            return None
    return group


def listed_names(group, name):
    """A list of names among the attributes of a group, as Keras keeps it.

    Args:
        group: `h5py.Group`.
        name: of the attribute, which may be split into name0, name1, ...

    Returns:
        List of str, or None if there is no such attribute.

    Raises:
        ValueError: if it cannot be read.
    """
    parts = [name]
    if name not in group.attrs:
        numbered = (f"{name}{i}" for i in itertools.count())
        parts = list(itertools.takewhile(group.attrs.__contains__, numbered))
    if not parts:
        return None
    values = [value for part in parts for value in np.ravel(_attribute(group, part))]
    return [
        value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        for value in values
    ]


def _attribute(group, name):
    try:
        return group.attrs[name]
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"Cannot read an attribute: {error}. "
            f"Received: {name=} of {group.name}, path={group.file.filename!r}"
        ) from error


def check_datasets(file, datasets):
    """Raises ValueError unless the values of datasets lie in the file, and are no flood.

    An HDF5 file may name other files as the place of its values, any that this process can read,
    and claim sizes that it does not have.

    Args:
        file: `h5py.File`.
        datasets: list of `h5py.Dataset`.
    """
    elsewhere = [item.name for item in datasets if lies_elsewhere(item)]
    if elsewhere:
        raise ValueError(
            "The file takes values from other files, which is not done: "
            f"{', '.join(elsewhere)}. Received: path={file.filename!r}"
        )
    others = [f"{item.name} of {item.dtype}" for item in datasets if item.dtype.kind not in "biuf"]
    if others:
        raise ValueError(
            f"Expected numbers as weights. Received: {', '.join(others)}, path={file.filename!r}"
        )
    size, total = os.path.getsize(file.filename), sum(item.nbytes for item in datasets)
    if total > max(MOST_PACKED * size, SMALL):
        raise ValueError(
            f"The file of {size} bytes claims to hold {total} bytes of weights, more than weights "
            f"can be packed. Received: path={file.filename!r}"
        )


def lies_elsewhere(dataset):
    """Whether the values of a `h5py.Dataset` are in another file, or may be."""
    return bool(dataset.external) or dataset.is_virtual


def walk(file):
    """Goes through a file, each group once: one may hold itself, under many names.

    Args:
        file: `h5py.File`.

    Yields:
        Tuples of a path and a `h5py.Group` or `h5py.Dataset`; or None for a link, and for what
        cannot be read.
    """
    seen, waiting = set(), [("", file)]
    while waiting:
        path, group = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            continue
        seen.add(address)
        try:
            names = list(group)
        except (OSError, RuntimeError, KeyError, ValueError):
            yield path or "/", None
            continue
        below = []
        for name in names:
            try:
                item = find_item(group, name)
            except (OSError, RuntimeError, KeyError, ValueError):
                item = None
            if isinstance(item, h5py.Group):
                below.append((f"{path}/{name}", item))
            yield f"{path}/{name}", item
        waiting += reversed(below)


def _fault(path, error):
    """What is wrong with a file that h5py refuses."""
    size, whole = path.stat().st_size, re.search(r"stored_eo[af] = (\d+)", str(error))
    fault = "damaged or cut off"
    if whole is not None and int(whole[1]) > size:
        fault = f"cut off: it has {size} of {whole[1]} bytes"
    return f"The HDF5 file is {fault}. Received: path={str(path)!r} ({error})"
