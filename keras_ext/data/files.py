"""Text of a file, exactly as stored."""

from pathlib import Path


def read_text(path):
    r"""Read UTF-8 text without its byte order mark; line ends stay as they are.

    Args:
        path: The file.

    Returns:
        A string.

    Raises:
        ValueError: If the file is empty or not UTF-8.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from None
    if not text.strip():
        raise ValueError(f"{path}: the file is empty. Expected at least one record.")
    return text
