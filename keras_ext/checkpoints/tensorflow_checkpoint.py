"""TensorFlow checkpoints as files: the one place of this part that needs TensorFlow."""

import math
from pathlib import Path

import numpy as np

from keras_ext.files.file_kind import CHECKPOINT_INDEX, UNKNOWN, file_kind, wrong_kind
from keras_ext.files.replaced_files import replaced_files

EXPECTED = "the index of a TensorFlow checkpoint (*.index, beside *.data-*)"


def checkpoint_prefix(path):
    """The prefix that the files of a TensorFlow checkpoint share.

    Args:
        path: the prefix, such as "bert_model.ckpt"; the `.index` file; or a folder with one
            checkpoint.

    Returns:
        Str.

    Raises:
        ValueError: if there is no checkpoint, or more than one; if the file is of another kind; if
            there is an index without data; for a path that TensorFlow takes for a pattern.
    """
    path = _plain(path)
    if path.is_dir():
        found = sorted(path.glob("*.index"))
        if len(found) != 1:
            raise ValueError(
                "Expected a folder with exactly one checkpoint (*.index). "
                f"Received: path={str(path)!r}, found={[index.name for index in found]}"
            )
        index = _plain(found[0])
    else:
        index = path if path.suffix == ".index" else path.with_name(f"{path.name}.index")
    if not index.is_file():
        if path.is_file():
            raise ValueError(wrong_kind(path, "a TensorFlow checkpoint, named by the prefix"))
        raise ValueError(
            "There is no such checkpoint; expected the prefix of its files (*.index, *.data-*). "
            f"Received: path={str(path)!r}"
        )
    kind = file_kind(index)
    if kind != CHECKPOINT_INDEX:
        cut = kind == UNKNOWN
        raise ValueError(wrong_kind(index, EXPECTED, f"{kind}, or cut off" if cut else kind))
    if not list(index.parent.glob(f"{index.stem}.data-?????-of-?????")):
        raise ValueError(
            "The checkpoint has an index but no data file (*.data-00000-of-00001). "
            f"Received: path={str(path)!r}"
        )
    return index.with_suffix("").as_posix()


def _plain(path):
    """The path, which must be none that TensorFlow could not find again."""
    path = Path(path)
    if any(letter in path.as_posix() for letter in "*?[]\\"):
        raise ValueError(
            "TensorFlow takes a path with any of *?[]\\ for a pattern of files; rename the folder "
            f"or the file. Received: path={str(path)!r}"
        )
    return path


def tensor_names(path):
    """The names of the tensors in a TensorFlow checkpoint; nothing else is read.

    Args:
        path: as for `checkpoint_prefix`.

    Returns:
        List of str, sorted.

    Raises:
        ValueError: as `checkpoint_prefix`; if the index cannot be read; if TensorFlow is not
            installed.
    """
    return sorted(tensor_shapes(path))


def tensor_shapes(path):
    """The shapes of the tensors in a TensorFlow checkpoint; nothing else is read.

    Args:
        path: as for `checkpoint_prefix`.

    Returns:
        Dict from names to lists of int.

    Raises:
        ValueError: as `tensor_names`.
    """
    return _reader(path).get_variable_to_shape_map()


def read_tensors(path, names):
    """Tensors of a TensorFlow checkpoint.

    Args:
        path: as for `checkpoint_prefix`.
        names: iterable of str, names of tensors in it.

    Returns:
        Dict from names to NumPy arrays.

    Raises:
        ValueError: as `tensor_names`; if the data is cut off or damaged, naming every tensor that
            is not whole.
    """
    tensorflow = _tensorflow()
    reader = _reader(path)
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    left = sum(file.stat().st_size for file in _data_files(path))
    values, lost = {}, []
    for name in names:
        dtype = dtypes.get(name, tensorflow.string)
        size = 0 if dtype == tensorflow.string else math.prod(shapes[name]) * dtype.size
        # Nothing is packed: what is claimed beyond the data would only fill the memory.
        if size > left:
            lost.append(name)
            continue
        try:
            values[name] = np.asarray(reader.get_tensor(name))
            left -= size
        except (tensorflow.errors.OpError, IndexError, RuntimeError, ValueError):
            lost.append(name)
    if lost:
        raise ValueError(
            "The data of the checkpoint is cut off or damaged; these tensors are not whole: "
            f"{', '.join(lost)}. Received: path={str(path)!r}{_data_kinds(path)}"
        )
    return values


def _data_kinds(path):
    """What the data files seem to be, where that is telling."""
    kinds = {file.name: file_kind(file) for file in _data_files(path)}
    return "".join(f"; {name} is {kind}" for name, kind in kinds.items() if kind != UNKNOWN)


def _data_files(path):
    index = Path(f"{checkpoint_prefix(path)}.index")
    return sorted(index.parent.glob(f"{index.stem}.data-*"))


def write_tensors(path, values):
    """Writes a TensorFlow checkpoint: `path`.index and `path`.data-00000-of-00001.

    Args:
        path: prefix of the files. Folders are made.
        values: dict from names to NumPy arrays.

    Raises:
        OSError: if a file cannot be written; both are then as they were.
        ValueError: for a path that TensorFlow takes for a pattern, or that is a folder; if
            TensorFlow is not installed.
    """
    tensorflow = _tensorflow()
    path = _plain(path).absolute()
    if path.is_dir():
        raise ValueError(
            "Expected the prefix of the files, such as bert_model.ckpt in that folder. "
            f"Received: path={str(path)!r}"
        )
    files = f"{path.name}.data-00000-of-00001", f"{path.name}.index"
    with replaced_files(path.parent, files) as new, tensorflow.device("cpu"):
        try:
            tensorflow.raw_ops.SaveV2(
                prefix=(new / path.name).as_posix(),
                tensor_names=list(values),
                shape_and_slices=[""] * len(values),
                tensors=[tensorflow.constant(value) for value in values.values()],
            )
        except tensorflow.errors.OpError as error:
            raise OSError(error.message) from error


def _reader(path):
    prefix = checkpoint_prefix(path)
    tensorflow = _tensorflow()
    try:
        return tensorflow.train.load_checkpoint(prefix)
    except (tensorflow.errors.OpError, IndexError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"The index of the checkpoint is damaged. Received: path={str(path)!r} ({error})"
        ) from error


def _tensorflow():
    try:
        import tensorflow
    except ImportError as error:
        raise ValueError(
            "Only TensorFlow reads and writes its checkpoints; install it, for example by "
            f"`pip install tensorflow`. Received: {error}"
        ) from error
    return tensorflow
