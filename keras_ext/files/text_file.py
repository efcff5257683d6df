"""Text and JSON of a file, exactly as stored, and what is wrong where it is something else."""

import json
import re
from collections import Counter
from pathlib import Path, PurePosixPath, PureWindowsPath

from keras_ext.files.encodings import decode
from keras_ext.files.file_kind import STAND_INS, UNKNOWN, content_kind

DEEPEST = 100  # objects and arrays of JSON in one another; what walks through them recurses
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def read_text(path, encoding="utf-8"):
    r"""Read text without its byte order mark; line ends stay as they are.

    Args:
        path: The file.
        encoding: Name of its encoding. Defaults to `"utf-8"`.

    Returns:
        A string.

    Raises:
        ValueError: If the file is empty, has another encoding, or stands for another file, as a Git
            LFS pointer or the page of a failed download does.
    """
    content = Path(path).read_bytes()
    kind = content_kind(content[:1024], STAND_INS)
    if kind != UNKNOWN:
        raise ValueError(f"{path}: the file is {kind}. Expected the text itself.")
    try:
        text = decode(content, encoding)
    except ValueError as error:
        kind = content_kind(content[:1024])
        known = str(error) if kind == UNKNOWN else f"not {str(encoding).upper()} text, but {kind}"
        raise ValueError(f"{path}: {known}") from None
    if not text.strip():
        raise ValueError(f"{path}: the file is empty. Expected text.")
    if len(text) >= 64 and 2 * text.count("\0") >= len(text):
        raise ValueError(
            f"{path}: half of the file are NUL bytes: it is damaged, binary, or text in another "
            f"encoding, such as UTF-16. Received: encoding={encoding!r}"
        )
    return text


def lines_of(text):
    r"""The lines of a text, which end with `\n`, `\r\n` or, where there is no `\n`, with `\r`.

    Other characters at which `str.splitlines` splits, such as U+2028, may stand inside a text.

    Args:
        text: A string.

    Returns:
        List of strings without their ends.

    Example:

    >>> lines_of("a\r\nb\u2028c")
    ['a', 'b\u2028c']
    """
    if "\n" not in text:
        return text.split("\r")
    return [line.removesuffix("\r") for line in text.split("\n")]


def load_json(text, source):
    """The value that JSON text stands for.

    Args:
        text: A string or bytes.
        source: What the text is, such as the path of the file, for the message.

    Returns:
        The value.

    Raises:
        ValueError: If it is no JSON, an object has a key twice, or the value has more than 100
            levels; the message names source and line.

    Example:

    >>> load_json('{"a": [1, 2]}', "example")
    {'a': [1, 2]}
    """
    try:
        value = json.loads(text, object_pairs_hook=_object)
        brackets = ("[", "{") if isinstance(text, str) else (b"[", b"{")
        if sum(map(text.count, brackets)) > DEEPEST and _is_deep(value):
            raise RecursionError
    except RecursionError:
        raise ValueError(
            f"{source}: JSON of more than {DEEPEST} levels, as no program writes it. Expected at "
            "most that many arrays and objects in one another."
        ) from None
    except ValueError as error:
        raise ValueError(f"{source}: not JSON: {error}") from None
    return value


def read_object(path):
    """The content of a JSON file that must be an object.

    Args:
        path: The file.

    Returns:
        A dict.

    Raises:
        ValueError: If the file is missing, not JSON, or not an object.
    """
    try:
        content = load_json(read_text(path), path)
    except OSError as error:
        raise ValueError(f"Cannot read the file: {error}. Received: path={str(path)!r}") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: expected a JSON object. Received: {type(content).__name__} {content!r:.80}"
        )
    return content


def path_inside(folder, name, source):
    """The path of a file or folder that another file of the same folder names.

    Args:
        folder: The folder.
        name: What the file says, a relative path.
        source: The file that says it, for the message.

    Returns:
        A `Path`.

    Raises:
        ValueError: If the name leads out of the folder.

    Example:

    >>> path_inside("model", "1_Pooling", "modules.json").as_posix()
    'model/1_Pooling'
    """
    outside = not isinstance(name, str) or "\0" in name
    for flavour in () if outside else (PurePosixPath, PureWindowsPath):
        path = flavour(name)
        outside = outside or bool(path.anchor) or ".." in path.parts
    if outside:
        raise ValueError(
            f"{source} names what is not in its folder. Expected a relative path without '..'. "
            f"Received: {name!r:.80}"
        )
    return Path(folder) / name


def model_folder(folder):
    """The path of a folder with a model of the Hugging Face Hub.

    Args:
        folder: The path.

    Returns:
        A `Path`.

    Raises:
        ValueError: If there is no such folder; for what could be a name on the Hub, the message
            says how to download it.
    """
    path = Path(folder)
    if path.is_dir():
        return path
    if path.exists():
        raise ValueError(f"Expected a folder, not a file. Received: folder={str(folder)!r}")
    advice = ""
    if HUB_NAME.fullmatch(str(folder)):
        local = str(folder).rpartition("/")[2]
        advice = (
            "Nothing is downloaded here. If this is a name on the Hugging Face Hub, run "
            f"`hf download {folder} --local-dir {local}` (before its version 1: "
            f"`huggingface-cli download {folder} --local-dir {local}`), and give that folder. "
        )
    raise ValueError(f"There is no such folder. {advice}Received: folder={str(folder)!r}")


def _object(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"an object has the key {key!r:.80} twice")
    return found


def _is_deep(value):
    level = [value]
    for _ in range(DEEPEST):
        children = (x.values() if isinstance(x, dict) else x for x in level)
        level = [x for part in children for x in part if isinstance(x, (dict, list))]
    return bool(level)
