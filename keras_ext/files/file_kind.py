"""What a file is by its content, whatever its name says. Nothing is unpacked or executed."""

import re
from pathlib import Path

EMPTY = "empty"
ZIP = "a zip archive (a PyTorch .bin, .npz, .keras or office file)"
GZIP = "packed by gzip"
PICKLE = "a pickle, which could run any code and is never opened"
HDF5 = "an HDF5 file"
PDF = "a PDF document"
GIT_LFS = "a Git LFS pointer, not the file itself; fetch that with `git lfs pull`"
PAGE = "an HTML or XML page, perhaps the error page of a download"
SAFETENSORS = "a safetensors file"
CHECKPOINT_INDEX = "the index of a TensorFlow checkpoint"
UNKNOWN = "of an unknown kind"

# What stands in the place of a file that was not fetched; text, unlike the others.
STAND_INS = {
    GIT_LFS: re.compile(rb"version https://git-lfs"),
    PAGE: re.compile(rb"<(!doctype\s|html[\s>]|head>|body>|\?xml\s|error>)", re.IGNORECASE),
}
SIGNATURES = {
    ZIP: re.compile(rb"PK(?=[\x03\x05])"),
    GZIP: re.compile(rb"\x1f\x8b"),
    PICKLE: re.compile(rb"\x80"),
    HDF5: re.compile(rb"\x89HDF"),
    PDF: re.compile(rb"%PDF-"),
    **STAND_INS,
}
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
    return CHECKPOINT_INDEX if end == TABLE_MAGIC else content_kind(start)


def content_kind(start, kinds=SIGNATURES):
    """What the first bytes of a file begin, blanks before them apart.

    Args:
        start: bytes.
        kinds: dict from strings of this module to patterns, the kinds that are looked for.

    Returns:
        One of the strings of this module.

    Example:

    >>> content_kind(b"version https://git-lfs.github.com/spec/v1", STAND_INS)
    'a Git LFS pointer, not the file itself; fetch that with `git lfs pull`'
    """
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((kind for kind, pattern in kinds.items() if pattern.match(text)), UNKNOWN)


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
