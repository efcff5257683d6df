"""Records in JSON files: our own, those of annotation tools, CLUENER and CMeEE."""

import collections
import json
import re
from pathlib import Path

from keras_ext.data.annotation_rows import cluener_entities, cmeee_entity, to_record
from keras_ext.data.convert_offsets import convert_offsets
from keras_ext.data.left_out import warn_left_out
from keras_ext.data.records import check_records, record_name
from keras_ext.files.replaced_files import replaced_file
from keras_ext.files.text_file import lines_of, load_json, read_text

# Two surrogates in a row would be read back as one character and shift every later offset.
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def read_jsonl(path, encoding="utf-8", unit="characters", one_based=False, end_inclusive=False):
    """Read records from JSON, one a line or as one array.

    Besides our own form (see `check_records`) these are known by their keys: the exports of
    doccano, Prodigy, Label Studio (full and minimal) and spaCy, CLUENER and CMeEE. Where an entity
    carries its mention, it is compared with the text. What was rejected, relations and the like are
    left out and counted in a `UserWarning`.

    Args:
        path: The file, with or without byte order mark.
        encoding: Of the file. Defaults to `"utf-8"`.
        unit: What the offsets count, `one_based` and `end_inclusive`: see `convert_offsets`.
            Defaults to `"characters"`.
        one_based: Defaults to `False`.
        end_inclusive: Defaults to `False`; CLUENER's and CMeEE's ends are known to be inclusive.

    Returns:
        List of records; those without annotations in the file have no `"entities"`.

    Raises:
        ValueError: If the file holds no records, no JSON, a malformed record, annotations in a form
            or under a key that is not known, or offsets that do not give their mention.

    Example:

    ```python
    records = read_jsonl("train.jsonl")  # {"text": "In Rome", "entities": [...]} a line
    ```
    """
    left_out, rows, records, foreign = collections.Counter(), read_json(path, encoding), [], []
    if len(rows) == 1 and isinstance(rows[0], dict) and "text" not in rows[0]:
        annotations = rows[0].get("annotations")
        if isinstance(annotations, list) and "data" not in rows[0]:
            rows = [row for row in annotations if row is not None]  # an annotator for spaCy
    for index, row in enumerate(rows):
        try:
            record, own = to_record(row, left_out)
        except ValueError as error:
            raise ValueError(f"{record_name(row, index, path)}: {error}") from None
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{record_name(row, index, path)}: not a record of a known form ({error!r}). "
                f"Received: {row!r:.80}"
            ) from None
        if record is not None:
            records.append(record)
            foreign.append(not own)
    records = convert_offsets(records, unit, one_based, end_inclusive, source=str(path))
    for record, other in zip(records, foreign, strict=True):
        for entity in record.get("entities", ()) if other else ():
            entity.pop("text", None)
    warn_left_out(path, left_out)
    return records


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


def read_cluener(path, encoding="utf-8"):
    """Read CLUENER files: JSON lines with `"label": {type: {mention: [[start, last], ...]}}`.

    Args:
        path: The file. One without `"label"`, such as the test set, gives unlabelled records.
        encoding: Of the file. Defaults to `"utf-8"`.

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
    return _of_one_form(path, encoding, "label", cluener_entities, "CLUENER")


def read_cmeee(path, encoding="utf-8"):
    """Read CMeEE files: a JSON array of texts with `start_idx`, `end_idx` (inclusive) and `type`.

    Args:
        path: The file.
        encoding: Of the file. Defaults to `"utf-8"`.

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
    return _of_one_form(path, encoding, "entities", lambda row: map(cmeee_entity, row), "CMeEE")


def _of_one_form(path, encoding, key, entities_of, name):
    """Records from rows that keep their entities under one key; mentions are compared."""
    records = []
    for index, row in enumerate(read_json(path, encoding)):
        try:
            record = {k: v for k, v in row.items() if k != key}
            if key in row:
                record["entities"] = list(entities_of(row[key]))
            record["text"]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{record_name(row, index, path)}: not a {name} record ({error!r}). "
                f"Received: {row!r:.80}"
            ) from None
        records.append(record)
    records = check_records(records, source=str(path), labelled=False)
    for record in records:
        for entity in record.get("entities", ()):
            entity.pop("text", None)
    return records


def read_json(path, encoding="utf-8"):
    """Read a file of JSON values, one a line or as one array.

    Args:
        path: The file. In one with the suffix `.jsonl`, the only line is a value, too, if it is an
            array, but not of objects or of arrays alone.
        encoding: Of the file. Defaults to `"utf-8"`.

    Returns:
        List of the values.

    Raises:
        ValueError: If it is no JSON; the message names the line.
    """
    text = read_text(path, encoding)
    lines = [line for line in enumerate(lines_of(text), start=1) if line[1].strip()]
    if len(lines) > 1 and _is_json(lines[0][1]):
        return [load_json(line, f"{path}, line {number}") for number, line in lines]
    value = load_json(text, path)
    if not isinstance(value, list):
        return [value]
    kinds = set(map(type, value))
    one_line = Path(path).suffix.lower() == ".jsonl" and kinds not in (set(), {dict}, {list})
    return [value] if one_line else value


def _is_json(line):
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
