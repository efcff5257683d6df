"""Reading safetensors files, and telling what a file is that only claims to be one."""

import json
from pathlib import Path

import ml_dtypes  # noqa: F401 makes bfloat16 known to NumPy
from safetensors import SafetensorError, deserialize, safe_open

SIGNATURES = (
    (b"PK", "a zip archive (a PyTorch .bin, .npz or .keras file)"),
    (b"\x80", "a pickle, which could run any code and is never opened"),
    (b"\x89HDF", "an HDF5 file"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    (b"<", "an HTML or XML page, perhaps the error page of a download"),
)


def read_safetensors(path):
    """Reads a safetensors file.

    Args:
        path: a safetensors file, or a folder that holds `model.safetensors` or the shards listed
            in `model.safetensors.index.json`.

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
    if index.is_file():
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
        content = json.loads(Path(path).read_text(encoding="utf-8"))
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
        raise ValueError(f"{_fault(path)}path={str(path)!r} ({error})") from error


def _tensor(file, name):
    try:
        tensor = file.get_tensor(name)
    except (AttributeError, TypeError) as error:  # NumPy lacks the dtype, such as float8
        raise ValueError(f"Unknown dtype of a tensor. Received: {name=} ({error})") from error
    return tensor.astype("float32") if tensor.dtype.name in ("float16", "bfloat16") else tensor


def _fault(path):
    """What is wrong with a file that the library refuses: a message up to what was received."""
    with path.open("rb") as file:
        start = file.read(1024)
        length = int.from_bytes(start[:8], "little")
        if start[8:9] == b"{" and length <= 2**27:
            file.seek(8)
            header = file.read(length)
            if len(header) < length:
                return "The file is cut off within its header. Received: "
            fault = _header_fault(header, path.stat().st_size - 8 - length)
            if fault:
                return fault
    text = start.lstrip()
    kinds = (kind for signature, kind in SIGNATURES if text.startswith(signature))
    kind = next(kinds, "of an unknown kind") if start else "empty"
    return f"Expected a safetensors file, but the file is {kind}. Received: "


def _header_fault(header, size):
    """The same for a header with `size` bytes of data after it; None if it lists no tensors."""
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
