"""Choose the reader of a file by its suffix and content."""

from pathlib import Path

from keras_ext.data.conll import read_conll
from keras_ext.data.json_records import read_cluener, read_cmeee, read_json, read_jsonl

_COLUMNS = (".conll", ".tsv", ".txt", ".annotated", ".bio", ".iob", ".bmes")


def read_records(path, format="auto"):
    """Read a file of records in any of the known formats.

    Args:
        path: The file, UTF-8.
        format: `"jsonl"`, `"cluener"`, `"cmeee"` or `"conll"`; `"auto"` decides by the suffix and,
            for `.json` and `.jsonl`, by the keys of the first record. Defaults to `"auto"`.

    Returns:
        List of records. Records of an unlabelled JSON file have no `"entities"`.

    Raises:
        ValueError: If the format cannot be told or the file does not have it.

    Example:

    ```python
    records = read_records("train.jsonl")
    records = read_records("train.txt", format="conll")
    ```
    """
    readers = {
        "jsonl": read_jsonl,
        "cluener": read_cluener,
        "cmeee": read_cmeee,
        "conll": read_conll,
    }
    chosen = _guess(Path(path)) if format == "auto" else format
    if chosen not in readers:
        raise ValueError(
            f"{path}: unknown format. Expected one of {sorted(readers)} or 'auto'. "
            f"Received: format={format!r}"
        )
    return readers[chosen](path)


def _guess(path):
    suffix = path.suffix.lower()
    if suffix in _COLUMNS:
        return "conll"
    if suffix not in (".json", ".jsonl"):
        raise ValueError(
            f"{path}: cannot tell the format from the suffix. Expected .json, .jsonl or one of "
            f"{', '.join(_COLUMNS)}, or an explicit format. Received: suffix={suffix!r}"
        )
    for row in read_json(path):
        if not isinstance(row, dict):
            break
        if isinstance(row.get("label"), dict):
            return "cluener"
        entities = row.get("entities")
        if entities:  # of any type: what they should be is for the reader to say
            first = entities[0] if isinstance(entities, list) else None
            return "cmeee" if isinstance(first, dict) and "start_idx" in first else "jsonl"
    return "jsonl"
