"""Records in JSON files: our own JSON lines, CLUENER and CMeEE."""

import json
import re

from keras_ext.data.files import read_text
from keras_ext.data.records import check_records, record_name
from keras_ext.files.replaced_files import replaced_file

# Two surrogates in a row would be read back as one character and shift every later offset.
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def read_jsonl(path):
    """Read records from JSON, one a line or as one array. See `check_records` for their form.

    Args:
        path: The file, UTF-8 with or without byte order mark.

    Returns:
        List of records; those without `"entities"` in the file have none here.

    Raises:
        ValueError: If the file holds no records, no JSON, or a malformed record.

    Example:

    ```python
    records = read_jsonl("train.jsonl")  # {"text": "In Rome", "entities": [...]} a line
    ```
    """
    return check_records(read_json(path), source=str(path), labelled=False)


def write_jsonl(records, path):
    """Write records as JSON lines that `read_jsonl` reads back unchanged.

    Args:
        records: Iterable of records.
        path: The file; an existing one is replaced, once the new one is whole. Folders are made.

    Raises:
        ValueError: If a record is malformed or cannot be written without changing its text.
        OSError: If the file cannot be written; an existing one is then as it was.

    Example:

    ```python
    entity = {"start": 3, "end": 7, "label": "place"}
    write_jsonl([{"text": "In Rome", "entities": [entity]}], "train.jsonl")
    ```
    """
    lines = []
    for index, record in enumerate(check_records(records, labelled=False)):
        line = json.dumps(record, ensure_ascii=False)
        if _SURROGATE_PAIR.search(line):
            raise ValueError(
                f"{record_name(record, index)}: two surrogates in a row cannot be written as JSON. "
                f"Expected proper Unicode. Received: {line!r:.80}"
            )
        lines.append(line + "\n")
    # A lone surrogate becomes \udxxx, which is its JSON escape.
    with replaced_file(path) as new:
        new.write_bytes("".join(lines).encode("utf-8", errors="backslashreplace"))


def read_cluener(path):
    """Read CLUENER files: JSON lines with `"label": {type: {mention: [[start, last], ...]}}`.

    Args:
        path: The file. One without `"label"`, such as the test set, gives unlabelled records.

    Returns:
        List of records.

    Raises:
        ValueError: If a line is malformed, or an offset does not give its mention.

    Example:

    ```python
    records = read_cluener("train.json")
    ```

    Reference: CLUENER2020: Fine-grained Named Entity Recognition Dataset and Benchmark for
    Chinese, Xu et al., 2020, https://arxiv.org/abs/2001.04351
    """

    def spans(row):
        for label, mentions in row["label"].items():
            for mention, places in mentions.items():
                for start, last in places:
                    yield start, last, label, mention

    return _from_inclusive(path, spans, "label", "CLUENER")


def read_cmeee(path):
    """Read CMeEE files: a JSON array of texts with `start_idx`, `end_idx` (inclusive) and `type`.

    Args:
        path: The file.

    Returns:
        List of records.

    Raises:
        ValueError: If an item is malformed, or an offset does not give its `entity`.

    Example:

    ```python
    records = read_cmeee("CMeEE-V2_train.json")
    ```

    Reference: CBLUE: A Chinese Biomedical Language Understanding Evaluation Benchmark, Zhang et
    al., 2022, https://arxiv.org/abs/2106.08087
    """

    def spans(row):
        for entity in row["entities"]:
            yield entity["start_idx"], entity["end_idx"], entity["type"], entity.get("entity")

    return _from_inclusive(path, spans, "entities", "CMeEE")


def _from_inclusive(path, spans, key, name):
    """Records from rows whose entities `spans(row)` gives as start, last, label, mention."""
    records = []
    for index, row in enumerate(read_json(path)):
        try:
            record = {k: v for k, v in row.items() if k != key}
            text = record["text"]
            if key in row:
                record["entities"] = found = []
                for start, last, label, mention in spans(row):
                    if mention is not None and text[start : last + 1] != mention:
                        raise ValueError(
                            f"offsets do not give the mention. Expected: {mention!r} at "
                            f"[{start}, {last}]. Received: {text[start : last + 1]!r}"
                        )
                    found.append({"start": start, "end": last + 1, "label": label})
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{record_name(row, index, path)}: not a {name} record ({error!r}). "
                f"Received: {row!r:.80}"
            ) from None
        except ValueError as error:
            raise ValueError(f"{record_name(row, index, path)}: {error}") from None
        records.append(record)
    return check_records(records, source=str(path), labelled=False)


def read_json(path):
    """Read a file of JSON values, one a line or as one array.

    Args:
        path: The file.

    Returns:
        List of the values.

    Raises:
        ValueError: If it is no JSON; the message names the line.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not a JSON array: {error}") from None
    rows = []
    # splitlines() would also split at characters that may stand inside a text, such as U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not JSON: {error}") from None
    return rows
