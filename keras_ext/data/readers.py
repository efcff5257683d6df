"""Choose the reader of a file by its suffix and neighbours."""

from pathlib import Path

from keras_ext.data.brat import read_brat
from keras_ext.data.conll import read_conll
from keras_ext.data.json_records import read_cluener, read_cmeee, read_jsonl

_COLUMNS = (".conll", ".conllu", ".tsv", ".txt", ".annotated", ".bio", ".iob", ".bmes", ".bioes")
_READERS = {
    "jsonl": read_jsonl,
    "cluener": read_cluener,
    "cmeee": read_cmeee,
    "conll": read_conll,
    "brat": read_brat,
}


def read_records(path, format="auto", encoding="utf-8", **counting):
    """Read a file of records in any of the known formats.

    Args:
        path: The file, or a folder of brat's.
        format: `"jsonl"` (all of JSON: see `read_jsonl`), `"cluener"`, `"cmeee"`, `"conll"` or
            `"brat"`; `"auto"` decides by the suffix, and takes a folder, `.ann`, and `.txt` beside
            an `.ann` of the same name for brat's. Defaults to `"auto"`.
        encoding: Of the file. Defaults to `"utf-8"`.
        **counting: `unit`, `one_based` and `end_inclusive` of `convert_offsets`, for JSON and
            brat's files whose offsets count otherwise.

    Returns:
        List of records. Records of an unlabelled JSON file have no `"entities"`.

    Raises:
        ValueError: If the format cannot be told or the file does not have it.

    Example:

    ```python
    records = read_records("train.jsonl")
    records = read_records("train.txt", format="conll")
    records = read_records("export.json", unit="utf16")
    ```
    """
    chosen = _guess(Path(path)) if format == "auto" else format
    if chosen not in _READERS:
        raise ValueError(
            f"{path}: unknown format. Expected one of {sorted(_READERS)} or 'auto'. "
            f"Received: format={format!r}"
        )
    if counting and chosen not in ("jsonl", "brat"):
        raise ValueError(
            f"{path}: the format {chosen!r} says how its offsets count. Expected no further "
            f"arguments. Received: {', '.join(f'{k}={v!r}' for k, v in counting.items())}"
        )
    return _READERS[chosen](path, encoding=encoding, **counting)


def _guess(path):
    suffix = path.suffix.lower()
    if path.is_dir() or suffix == ".ann" or suffix == ".txt" and path.with_suffix(".ann").exists():
        return "brat"
    if suffix in _COLUMNS:
        return "conll"
    if suffix in (".json", ".jsonl"):
        return "jsonl"
    raise ValueError(
        f"{path}: cannot tell the format from the suffix. Expected .json, .jsonl, .ann or one of "
        f"{', '.join(_COLUMNS)}, or an explicit format. Received: suffix={suffix!r}"
    )
