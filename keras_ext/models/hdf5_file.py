"""Opening HDF5 files, and telling what is lost where one is cut off."""

import itertools
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from keras_ext.data.file_kind import HDF5, ZIP, file_kind, wrong_kind

ADVICE = {
    ZIP: "If it is a .keras file of tf.keras, load it there and save it with "
    "model.save('name.h5'). "
}
MOST_PACKED = 1032  # bytes that HDF5's own compression can make of one


@contextmanager
def open_hdf5(path):
    """Opens an HDF5 file for reading, told by its first bytes whatever its name.

    Args:
        path: the file.

    Returns:
        Context manager that gives the `h5py.File`.

    Raises:
        ValueError: if the path is no HDF5 file, saying what it is; if the file is cut off, naming
            the tensors that are not whole.
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


def listed_names(group, name):
    """A list of names among the attributes of a group, as Keras keeps it.

    Args:
        group: `h5py.Group`.
        name: of the attribute, which may be split into name0, name1, ...

    Returns:
        List of str, or None if there is no such attribute.
    """
    parts = [name]
    if name not in group.attrs:
        numbered = (f"{name}{i}" for i in itertools.count())
        parts = list(itertools.takewhile(group.attrs.__contains__, numbered))
    if not parts:
        return None
    values = [value for part in parts for value in np.ravel(group.attrs[part])]
    return [
        value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        for value in values
    ]


def check_datasets(file, datasets):
    """Raises ValueError unless the values of datasets lie in the file, and are no flood.

    An HDF5 file may name other files as the place of its values, any that this process can read,
    and claim sizes that it does not have.

    Args:
        file: `h5py.File`.
        datasets: list of `h5py.Dataset`.
    """
    elsewhere = [
        item.name
        for item in datasets
        if item.external or item.is_virtual or item.file.filename != file.filename
    ]
    if elsewhere:
        raise ValueError(
            "The file takes values from other files, which is not done: "
            f"{', '.join(elsewhere)}. Received: path={file.filename!r}"
        )
    size, total = os.path.getsize(file.filename), sum(item.nbytes for item in datasets)
    if total > MOST_PACKED * size:
        raise ValueError(
            f"The file of {size} bytes claims to hold {total} bytes of weights, more than can be "
            f"packed in it. Received: path={file.filename!r}"
        )


def _fault(path, error):
    """What is wrong with a file that h5py refuses."""
    size, whole = path.stat().st_size, re.search(r"stored_eo[af] = (\d+)", str(error))
    received = f"Received: path={str(path)!r}"
    if whole is None or int(whole[1]) <= size:
        return f"The HDF5 file is damaged or cut off. {received} ({error})"
    with tempfile.TemporaryDirectory() as folder:
        try:
            # With its missing end filled by a hole, the file opens; what lies in the hole is lost.
            copy = shutil.copyfile(path, Path(folder) / "copy.h5")
            os.truncate(copy, int(whole[1]))
            with h5py.File(copy, "r") as file:
                lost = list(_lost(file, size))
        except (OSError, RuntimeError, KeyError):
            lost = []
    message = f"The file is cut off: it has {size} of {whole[1]} bytes; "
    if not lost:
        return f"{message}its structure is lost. {received}"
    return f"{message}these parts are not whole: {', '.join(lost)}. {received}"


def _lost(group, size):
    """The names of what is not within the first `size` bytes, below a group."""
    try:
        names = list(group)
    except (OSError, RuntimeError, KeyError, ValueError):
        # The group is a list of places, which may stand behind the names of what it holds.
        listed = listed_names(group, "layer_names") or listed_names(group, "weight_names")
        yield from (f"{group.name.rstrip('/')}/{name}" for name in listed or ["*"])
        return
    for name in names:
        path = f"{group.name.rstrip('/')}/{name}"
        try:
            item = group[name]
            lost = isinstance(item, h5py.Dataset) and any(end > size for end in _ends(item))
        except (OSError, RuntimeError, KeyError, ValueError):
            lost, item = True, None
        if lost:
            yield path
        elif isinstance(item, h5py.Group):
            yield from _lost(item, size)


def _ends(dataset):
    """Where the parts of a dataset end in the file."""
    if dataset.chunks:
        chunks = (dataset.id.get_chunk_info(i) for i in range(dataset.id.get_num_chunks()))
        return [chunk.byte_offset + chunk.size for chunk in chunks]
    offset = dataset.id.get_offset()  # None: nothing was ever written, or it is in the header
    return [] if offset is None else [offset + dataset.id.get_storage_size()]
