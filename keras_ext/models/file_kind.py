"""What a file is by its content, whatever its name says. Nothing is unpacked or executed."""

from pathlib import Path

EMPTY = "empty"
ZIP = "a zip archive (a PyTorch .bin, .npz or .keras file)"
PICKLE = "a pickle, which could run any code and is never opened"
HDF5 = "an HDF5 file"
GIT_LFS = "a Git LFS pointer; fetch the file itself with `git lfs pull`"
PAGE = "an HTML or XML page, perhaps the error page of a download"
SAFETENSORS = "a safetensors file"
CHECKPOINT_INDEX = "the index of a TensorFlow checkpoint"
UNKNOWN = "of an unknown kind"

SIGNATURES = (
    (b"PK", ZIP),
    (b"\x80", PICKLE),
    (b"\x89HDF", HDF5),
    (b"version https://git-lfs", GIT_LFS),
    (b"<", PAGE),
)
TABLE_MAGIC = bytes.fromhex("57fb808b247547db")  # ends a table of LevelDB, TensorFlow's index
LONGEST_HEADER = 2**27


def file_kind(path):
    """What a file is, by its first bytes (and the last, for the index of a checkpoint).

    Args:
        path: a file.

    Returns:
        One of the strings of this module, which complete "the file is ...".

    Raises:
        ValueError: if there is no such file.

    Example:

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> with open(path, "w") as file:
    ...     _ = file.write("<!DOCTYPE html>")
    >>> file_kind(path)
    'an HTML or XML page, perhaps the error page of a download'
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no such file. Received: path={str(path)!r}")
    with path.open("rb") as file:
        start = file.read(1024)
        file.seek(max(0, path.stat().st_size - len(TABLE_MAGIC)))
        end = file.read()
    if not start:
        return EMPTY
    # The length that begins a safetensors file could look like any of the signatures.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_HEADER:
        return SAFETENSORS
    if end == TABLE_MAGIC:
        return CHECKPOINT_INDEX
    text = start.lstrip()
    return next((kind for signature, kind in SIGNATURES if text.startswith(signature)), UNKNOWN)


def wrong_kind(path, expected, kind=None):
    """The message that a file is not what it should be.

    Args:
        path: the file.
        expected: str, such as "a safetensors file".
        kind: str, what the file is. Defaults to `file_kind(path)`.

    Returns:
        Str.
    """
    kind = file_kind(path) if kind is None else kind
    return f"Expected {expected}, but the file is {kind}. Received: path={str(path)!r}"
