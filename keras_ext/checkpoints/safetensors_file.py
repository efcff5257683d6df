"""Reading safetensors files, and telling what is wrong with one that cannot be read."""

import math
from pathlib import Path

import ml_dtypes  # noqa: F401 makes bfloat16 known to NumPy
from safetensors import SafetensorError, safe_open

from keras_ext.files.file_kind import SAFETENSORS, file_kind, wrong_kind
from keras_ext.files.text_file import load_json, path_inside, read_object

BITS = {
    "BOOL": 8,
    **{f"{kind}{bits}": bits for kind in "IU" for bits in (8, 16, 32, 64)},
    **{"BF16": 16, "F16": 16, "F32": 32, "F64": 64, "C64": 64},
    **{f"F8_{kind}": 8 for kind in ("E4M3", "E5M2", "E8M0", "E4M3FNUZ", "E5M2FNUZ")},
    **{"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}


def read_safetensors(path):
    """Reads a safetensors file.

    Args:
        path: a safetensors file, or a folder that holds `model.safetensors` or, without it, the
            shards listed in `model.safetensors.index.json`.

    Returns:
        Dict from the names of the tensors to NumPy arrays in memory. float16 and bfloat16 are
        converted to float32.

    Raises:
        ValueError: if the file is missing, empty, cut off (naming the tensors that are) or of
            another kind (saying which); if the index of the shards has another shape, names files
            out of its folder, or tensors that are not where it says. A pickle is never opened.

    Example:

    >>> import numpy as np, os, tempfile
    >>> from safetensors.numpy import save_file
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> save_file({"bias": np.ones(3, "float32")}, path)
    >>> read_safetensors(path)["bias"].tolist()
    [1.0, 1.0, 1.0]

    Source of the format: https://github.com/huggingface/safetensors
    """
    path = Path(path)
    if not path.is_dir():
        return _read_file(path)
    index = path / "model.safetensors.index.json"
    # Where a folder has both, Hugging Face's programs read the one file, too.
    if index.is_file() and not (path / "model.safetensors").exists():
        return _read_shards(index)
    if not (path / "model.safetensors").exists() and list(path.glob("*.bin")):
        raise ValueError(
            "The folder has its weights as a pickle only, which could run any code and is never "
            f"opened; save them as safetensors. Received: path={str(path)!r}"
        )
    return _read_file(path / "model.safetensors")


def _read_shards(index):
    shards = read_object(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
        raise ValueError(
            'Expected "weight_map", an object from names of tensors to names of files. '
            f"Received: weight_map={shards!r:.80}, path={str(index)!r}"
        )
    values, places = {}, {}
    for shard in sorted(set(shards.values())):
        for name, value in _read_file(path_inside(index.parent, shard, index)).items():
            if places.setdefault(name, shard) != shard:
                raise ValueError(
                    f"A tensor stands in two of the files: {name} in {places[name]} and {shard}. "
                    f"Expected it in one. Received: path={str(index)!r}"
                )
            values[name] = value
    misplaced = sorted(name for name, shard in shards.items() if places.get(name) != shard)
    if misplaced:
        raise ValueError(
            "The files do not hold what their index says. Expected in its file each of: "
            f"{', '.join(misplaced)}. Received: path={str(index)!r}"
        )
    return values


def _read_file(path):
    if not path.is_file():
        raise ValueError(f"There is no such weight file. Received: path={str(path)!r}")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: _tensor(file, name, path) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{_fault(path)} ({error})") from error


def _tensor(file, name, path):
    received = f"Received: {name=}, path={str(path)!r}"
    try:
        tensor = file.get_tensor(name)
    except (AttributeError, TypeError) as error:  # NumPy lacks the dtype, such as float8
        raise ValueError(f"Unknown dtype of a tensor. {received} ({error})") from error
    except ValueError as error:
        raise ValueError(f"No array has the shape of a tensor. {received} ({error})") from error
    return tensor.astype("float32") if tensor.dtype.name in ("float16", "bfloat16") else tensor


def _fault(path):
    """What is wrong with a file that the library refuses."""
    kind = file_kind(path)
    if kind != SAFETENSORS:
        return wrong_kind(path, "a safetensors file", kind)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length)
    if len(header) < length:
        return f"The file is cut off within its header. Received: path={str(path)!r}"
    return f"{_header_fault(header, path.stat().st_size - 8 - length)}path={str(path)!r}"


def _header_fault(header, size):
    """What is wrong with a header that has `size` bytes of data after it, up to what was received."""
    try:
        entries = load_json(header, "The header")  # an object: its kind is known by the brace
    except ValueError as error:
        return f"{str(error).removesuffix('.')}. Received: "
    entries.pop("__metadata__", None)
    lost = []
    for name, entry in entries.items():
        if not _sound(entry):
            return (
                "Unknown dtype, or the header contradicts itself about a tensor. "
                f"Received: name={name!r:.80}, entry={entry!r:.200}, "
            )
        if entry["data_offsets"][1] > size:
            lost.append(name)
    if lost:
        lost = ", ".join(sorted(lost))
        return f"The file is cut off; these tensors are not whole: {lost}. Received: "
    return "The header does not fit the data. Received: "


def _sound(entry):
    """Whether what a header says of a tensor is possible; nothing of that size is made."""
    try:
        (begin, end), shape = entry["data_offsets"], entry["shape"]
        numbers = [begin, end, *shape]
        bits = math.prod(shape) * BITS[entry["dtype"]]
    except (KeyError, TypeError, ValueError):
        return False
    whole = all(type(number) is int and number >= 0 for number in numbers)
    return whole and 8 * (end - begin) == bits
