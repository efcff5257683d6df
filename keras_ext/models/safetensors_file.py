"""Reading safetensors files, and telling what is wrong with one that cannot be read."""

import json
from pathlib import Path

import ml_dtypes  # noqa: F401 makes bfloat16 known to NumPy
from safetensors import SafetensorError, deserialize, safe_open

from keras_ext.models.file_kind import SAFETENSORS, UNKNOWN, file_kind, wrong_kind


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
            another kind (saying which), or the index of the shards has another shape. A pickle
            is never opened.

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
        files = [_read_file(path / shard) for shard in _shards(index)]
        return {name: value for file in files for name, value in file.items()}
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
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot read JSON: {error}. Received: path={str(path)!r}") from error
    if not isinstance(content, dict):
        raise ValueError(f"Expected a JSON object. Received: path={str(path)!r}")
    return content


def _shards(index):
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
        raise ValueError(
            'Expected "weight_map", an object from names of tensors to names of files. '
            f"Received: weight_map={shards!r:.80}, path={str(index)!r}"
        )
    return sorted(set(shards.values()))


def _read_file(path):
    if not path.is_file():
        raise ValueError(f"There is no such weight file. Received: path={str(path)!r}")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: _tensor(file, name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{_fault(path)} ({error})") from error


def _tensor(file, name):
    try:
        tensor = file.get_tensor(name)
    except (AttributeError, TypeError) as error:  # NumPy lacks the dtype, such as float8
        raise ValueError(f"Unknown dtype of a tensor. Received: {name=} ({error})") from error
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
    fault = _header_fault(header, path.stat().st_size - 8 - length)
    if fault:
        return f"{fault}path={str(path)!r}"
    return wrong_kind(path, "a safetensors file", UNKNOWN)


def _header_fault(header, size):
    """What is wrong with a header that has `size` bytes of data after it.

    Returns:
        A message up to what was received; None if the header lists no tensors.
    """
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        lost = sorted(name for name, entry in entries.items() if entry["data_offsets"][1] > size)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None
    if lost:
        return f"The file is cut off; these tensors are not whole: {', '.join(lost)}. Received: "
    for name, entry in entries.items():
        if not _sound(entry):
            return (
                "Unknown dtype, or the header contradicts itself about a tensor. "
                f"Received: {name=}, {entry=}, "
            )
    return "The header does not fit the data. Received: "


def _sound(entry):
    """Whether the library takes a file with this tensor alone."""
    try:
        begin, end = entry["data_offsets"]
        header = json.dumps({"tensor": {**entry, "data_offsets": [0, end - begin]}}).encode()
        deserialize(len(header).to_bytes(8, "little") + header + bytes(end - begin))
    except (SafetensorError, TypeError, ValueError):
        return False
    return True
