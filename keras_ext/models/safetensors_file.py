"""Reading safetensors files, and telling what a file is that only claims to be one."""

import json
import math
from pathlib import Path

import numpy as np

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
FIELDS = {"dtype", "shape", "data_offsets"}
SIGNATURES = (
    (b"PK", "a zip archive (a PyTorch .bin, .npz or .keras file)"),
    (b"\x80", "a pickle, which could run any code and is never opened"),
    (b"\x89HDF", "an HDF5 file"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    (b"<", "an HTML or XML page, perhaps the error page of a download"),
)


def read_safetensors(path):
    """Opens a safetensors file without reading its tensors into memory.

    Args:
        path: a safetensors file, or a folder that holds `model.safetensors` or the shards listed
            in `model.safetensors.index.json`.

    Returns:
        Dict from the names of the tensors to NumPy arrays. float16 and bfloat16 are converted to
        float32, the others are views of the file that are read when used.

    Raises:
        ValueError: if the file is missing, empty, cut off (naming the tensors that are) or of
            another kind (saying which). A pickle is never opened.

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
    if index.is_file():
        shards = sorted(set(read_json(index)["weight_map"].values()))
        return {name: value for shard in shards for name, value in _read_file(path / shard).items()}
    if not (path / "model.safetensors").exists() and list(path.glob("*.bin")):
        raise ValueError(
            "The folder has its weights as a pickle only, which could run any code and is never "
            f"opened; save them as safetensors. Received: path={str(path)!r}"
        )
    return _read_file(path / "model.safetensors")


def read_json(path):
    """The content of a JSON file that must be an object.

    Args:
        path: the file.

    Returns:
        Dict.

    Raises:
        ValueError: if it is missing, not JSON, or not an object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot read JSON: {error}. Received: path={str(path)!r}") from error
    if not isinstance(content, dict):
        raise ValueError(f"Expected a JSON object. Received: path={str(path)!r}")
    return content


def _read_file(path):
    if not path.is_file():
        raise ValueError(f"There is no such weight file. Received: path={str(path)!r}")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(1024)
        length = int.from_bytes(start[:8], "little")
        if start[8:9] != b"{" or length > 2**27:
            raise ValueError(_not_safetensors(start, path))
        file.seek(8)
        header = file.read(length)
    if len(header) < length:
        raise ValueError(f"The file is cut off within its header. Received: path={str(path)!r}")
    try:
        entries = json.loads(header)
    except ValueError as error:
        raise ValueError(_not_safetensors(start, path)) from error
    entries.pop("__metadata__", None)
    if not all(isinstance(e, dict) and set(e) == FIELDS for e in entries.values()):
        raise ValueError(_not_safetensors(start, path))
    begin = 8 + length
    lost = [name for name, e in entries.items() if begin + e["data_offsets"][1] > size]
    if lost:
        raise ValueError(
            f"The file is cut off; these tensors are not whole: {', '.join(sorted(lost))}. "
            f"Received: path={str(path)!r} of {size} bytes"
        )
    data = np.memmap(path, mode="r")[begin:]
    return {name: _tensor(data, name, **entry) for name, entry in entries.items()}


def _tensor(data, name, dtype, shape, data_offsets):
    if dtype not in DTYPES:
        raise ValueError(f"Unknown dtype of a tensor. Received: name={name!r}, {dtype=}")
    numbers = data[slice(*data_offsets)]
    if numbers.size != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
        raise ValueError(
            f"The header of the file contradicts itself about a tensor. Received: name={name!r}, "
            f"{dtype=}, {shape=}, {data_offsets=}"
        )
    numbers = numbers.view(DTYPES[dtype]).reshape(shape)
    if dtype == "F16":
        return np.asarray(numbers, "float32")
    if dtype == "BF16":  # the upper half of a float32
        return (numbers.astype("uint32") << 16).view("float32")
    return numbers


def _not_safetensors(start, path):
    if not start:
        kind = "empty"
    else:
        kinds = (kind for signature, kind in SIGNATURES if start.lstrip().startswith(signature))
        kind = next(kinds, "of an unknown kind")
    return f"Expected a safetensors file, but the file is {kind}. Received: path={str(path)!r}"
