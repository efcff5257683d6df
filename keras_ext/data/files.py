"""Text of a file, exactly as stored, and its lines."""

from pathlib import Path

# What a file that is not UTF-8 may be, in the order in which it is tried. The first of each pair is
# what people mean; the second, narrower, keeps Western text from passing for Chinese.
_ENCODINGS = [("gbk", "gb2312"), ("big5", "big5"), ("shift_jis", "shift_jis"), ("cp1252", "cp1252")]
_MARKS = [(b"\xff\xfe\x00\x00", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")]


def read_text(path, encoding="utf-8"):
    r"""Read text without its byte order mark; line ends stay as they are.

    Args:
        path: The file.
        encoding: Name of its encoding. Defaults to `"utf-8"`.

    Returns:
        A string.

    Raises:
        ValueError: If the file is empty, has another encoding, or there is no such encoding.
    """
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except LookupError:
        raise ValueError(
            f"{path}: unknown encoding. Expected one that Python knows, such as 'utf-8', 'gbk' or "
            f"'utf-16'. Received: encoding={encoding!r}"
        ) from None
    except UnicodeError as error:
        raise ValueError(f"{path}: not {encoding.upper()} text: {error}.{_hint(content)}") from None
    if not text.strip():
        raise ValueError(f"{path}: the file is empty. Expected at least one record.")
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


def _hint(content):
    """Which encoding would do, as the end of a message."""
    for mark, name in _MARKS:
        if content.startswith(mark):
            return f" It begins as {name.upper()} does: encoding={name!r}."
    for name, tried in _ENCODINGS:
        try:
            content.decode(tried)
        except UnicodeDecodeError:
            continue
        return f" It can be read as {name.upper()}: encoding={name!r}, if that is what it is."
    return ""
