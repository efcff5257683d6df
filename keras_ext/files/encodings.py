"""Bytes of a file -> text, with advice where they are in another encoding."""

# What a file that is not UTF-8 may be, in the order in which it is tried. The first of each pair is
# what people mean; the second, narrower, keeps Western text from passing for Chinese.
_ENCODINGS = [("gbk", "gb2312"), ("big5", "big5"), ("shift_jis", "shift_jis"), ("cp1252", "cp1252")]
_MARKS = [(b"\xff\xfe\x00\x00", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")]


def decode(content, encoding):
    """Text without its byte order mark.

    Args:
        content: Bytes.
        encoding: Name of their encoding.

    Returns:
        A string.

    Raises:
        ValueError: If there is no such encoding or it is another; the message names one that fits.

    Example:

    >>> decode(b"caf\\xe9", "latin-1")
    'café'
    """
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except (LookupError, TypeError):
        raise ValueError(
            "unknown encoding. Expected one that Python knows, such as 'utf-8', 'gbk' or 'utf-16'. "
            f"Received: encoding={encoding!r}"
        ) from None
    except UnicodeError as error:
        raise ValueError(f"not {encoding.upper()} text: {error}.{_hint(content)}") from None


def _hint(content):
    """Which encoding would do, as the end of a message."""
    for mark, name in _MARKS:
        if content.startswith(mark):
            return f" It begins as {name.upper()} does: encoding={name!r}."
    for name, tried in _ENCODINGS:
        try:
            text = content.decode(tried)
        except UnicodeDecodeError:
            continue
        if text.replace("\t", "").replace("\n", "").replace("\r", "").isprintable():
            return f" It can be read as {name.upper()}: encoding={name!r}, if that is what it is."
    return ""
