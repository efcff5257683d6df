"""brat's standoff files -> records."""

import collections
import re
from pathlib import Path

from keras_ext.data.convert_offsets import convert_offsets
from keras_ext.data.left_out import warn_left_out
from keras_ext.data.records import check_records
from keras_ext.files.text_file import lines_of, read_text

_LINE = re.compile(r"([TREAMN])\d+\t|\*\t")
_SPAN = re.compile(r"(\S+) (\d+) (\d+)((?:;\d+ \d+)*)")
_OTHERS = {
    **{"R": "relations", None: "relations", "E": "events", "N": "normalisations"},
    **{"A": "attributes", "M": "attributes"},
}


def read_brat(path, encoding="utf-8", unit="characters", one_based=False, end_inclusive=False):
    """Read texts with brat's standoff annotations: `name.txt` and `name.ann` side by side.

    Text-bound annotations (`T1<tab>person 0 3<tab>Ada`) become entities, and each is compared with
    the text. What is no entity, entities of several pieces, and texts of a folder without a file of
    annotations are left out and counted in a `UserWarning`.

    Args:
        path: One of the two files, or a folder of such pairs.
        encoding: Of the files. Defaults to `"utf-8"`.
        unit: What the offsets count, `one_based` and `end_inclusive`: see `convert_offsets`. brat
            itself counts characters from 0, ends exclusive, the defaults.
        one_based: Defaults to `False`.
        end_inclusive: Defaults to `False`.

    Returns:
        List of records, one a text, by name; `"id"` is the name.

    Raises:
        ValueError: If one of the two is missing (of a folder, the text), a line is malformed, or an
            offset does not give its mention; the message names the file.

    Example:

    ```python
    records = read_brat("corpus")  # corpus/a.txt, corpus/a.ann, ...
    ```

    Reference: brat: a Web-based Tool for NLP-Assisted Text Annotation, Stenetorp et al., 2012,
    https://aclanthology.org/E12-2021
    """
    path = Path(path)
    files = sorted(path.glob("*.ann")) if path.is_dir() else [path.with_suffix(".ann")]
    if not files:
        raise ValueError(f"{path}: no annotations. Expected files of the name *.ann.")
    left_out = collections.Counter()
    if path.is_dir():
        texts = {file.stem for file in path.glob("*.txt")} - {file.stem for file in files}
        left_out["texts without a file of annotations"] = len(texts)
    counting = {"unit": unit, "one_based": one_based, "end_inclusive": end_inclusive}
    records = [_record(file, encoding, counting, left_out) for file in files]
    warn_left_out(path, left_out)
    return check_records(records, source=str(path))


def _record(path, encoding, counting, left_out):
    text_file = path.with_suffix(".txt")
    for file in (path, text_file):
        if not file.is_file():
            raise ValueError(f"{file}: there is no such file. Expected {path.stem}.txt and .ann.")
    text = read_text(text_file, encoding)
    entities = []
    # An empty file of annotations says that there are none.
    lines = lines_of(read_text(path, encoding)) if path.read_bytes().strip() else []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):  # a note of the annotator
            continue
        kind = _LINE.match(line)
        if kind is None:
            raise ValueError(f"{path}, line {number}: not brat's format. Received: {line!r:.80}")
        if kind[1] != "T":
            left_out[_OTHERS[kind[1]]] += 1
            continue
        _, _, rest = line.partition("\t")
        place, _, mention = rest.partition("\t")
        match = _SPAN.fullmatch(place)
        if match is None:
            raise ValueError(
                f"{path}, line {number}: not an entity. Expected T1, a tab, a label, start and "
                f"end, a tab, the mention. Received: {line!r:.80}"
            )
        label, start, end, pieces = match.groups()
        if pieces:
            left_out["entities of several pieces"] += 1
            continue
        entity = {"start": int(start), "end": int(end), "label": label}
        entities.append({**entity, "text": mention} if mention else entity)
    records = [{"id": path.stem, "text": text, "entities": entities}]
    (record,) = convert_offsets(records, **counting, source=str(path))
    for entity in record["entities"]:
        entity.pop("text", None)
    return record
