"""Files of sentence pairs -> tuples of texts, with their score where there is one."""

import csv
import io
from collections.abc import Mapping
from numbers import Real
from pathlib import Path

import numpy as np

from keras_ext.data.files import read_text
from keras_ext.data.json_records import read_json
from keras_ext.data.pair_columns import checked_number, column_rows, roles

_TABS = (".tsv", ".txt", ".data")


def read_pairs(path):
    """Read a file of sentence pairs, triplets or bare texts.

    The suffix tells the format: `.tsv`, `.txt` and `.data` are columns with a tab between, where a
    quotation mark is a character like any other; `.csv` is comma separated with the usual quotes,
    or is read as the former if its first line holds a tab; `.jsonl` and `.json` hold one object a
    line or one array. In a file of columns the score is

    - the column that a header names; a header is a first line with at least two known names;
    - the fifth column in the layout of the STS benchmark: genre, file, year, id, score, two texts;
    - else the last column, if it is a number in most lines, and then it must be one in all.

    Known names are `text1`, `text2`, `sentence1`, `sentence2`, `anchor`, `positive`, `negative`
    (also `negative_1` ...; in JSON `negatives` may be a list), `premise`, `hypothesis`, `query`,
    `question1`, `question2`, `text`, `score`, `label`, `similarity` and some more; columns of other
    names are left out. The words contradiction, neutral and entailment are the scores 0, 1, 2.
    Blanks around a text are left out, and so are blank lines.

    Args:
        path: The file, UTF-8, any line ends.

    Returns:
        A list, all of one form: `(text, text, score)` with a float; `(text, text)`; `(anchor,
        positive, negative, ...)`; or bare strings.

    Raises:
        ValueError: If a side of a pair is empty, a score is NaN or no number, lines differ in
            their form, or the format is unknown; the message names file and line.

    Example:

    ```python
    pairs = read_pairs("train.tsv")  # [("Where is my card?", "My card is lost.", 3.5), ...]
    ```
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".json", ".jsonl"):
        rows = [_json_row(f"{path}, record {i}", row) for i, row in enumerate(read_json(path))]
    elif suffix in _TABS or suffix == ".csv":
        rows = column_rows(_cells(path, suffix))
    else:
        raise ValueError(
            f"{path}: cannot tell the format from the suffix. Expected .csv, .json, .jsonl or one "
            f"of {', '.join(_TABS)}. Received: suffix={suffix!r}"
        )
    if not rows:
        raise ValueError(f"{path}: the file holds no examples. Expected at least one.")
    forms = [
        f"{len(texts)} texts, {'no' if score is None else 'a'} score" for _, texts, score in rows
    ]
    for (place, _, _), form in zip(rows, forms, strict=True):
        if form != forms[0]:
            raise ValueError(
                f"{place}: all examples of a file must have one form. Expected {forms[0]}, as in "
                f"the first. Received: {form}"
            )
    return [_example(*row) for row in rows]


def check_examples(examples):
    """Tell what kind of examples to learn from these are, and split them into columns.

    Args:
        examples: Iterable of strings (`"texts"`), of `(text, text)` (`"pairs"`), of `(anchor,
            positive, negative, ...)` with any number of negatives (`"tuples"`) or of `(text, text,
            score)` (`"scored"`). Lists will do for tuples.

    Returns:
        A tuple `(kind, columns, labels)`: one of the four names; a list of m lists of strings; a
        float32 array of the scores, `None` for kinds without.

    Raises:
        ValueError: If there are none, kinds are mixed, something is no text, a text is
            empty, or a score is not finite.

    Example:

    >>> check_examples([("a", "b", 1), ("c", "d", 0.5)])
    ('scored', [['a', 'c'], ['b', 'd']], array([1. , 0.5], dtype=float32))
    """
    if isinstance(examples, (str, Mapping)):
        raise ValueError(f"Expected a list of examples. Received: examples={examples!r:.80}")
    examples = list(examples)
    if not examples:
        raise ValueError("There is nothing to learn from: no examples. Received: examples=[]")
    kinds = [_kind(index, example) for index, example in enumerate(examples)]
    for index, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise ValueError(
                f"Examples of two kinds are mixed. Expected {_described(kinds[0])}, as example 0. "
                f"Received: example {index}, {_described(kind)}: {examples[index]!r:.80}"
            )
    kind, width = kinds[0]
    if kind == "texts":
        columns = [examples]
    else:
        columns = [list(column) for column in zip(*examples, strict=True)]
    labels = _labels(columns.pop()) if kind == "scored" else None
    empty = [i for i in range(len(examples)) if any(not column[i].strip() for column in columns)]
    if empty:
        what = "empty texts" if kind == "texts" else "one-sided examples with an empty text"
        raise ValueError(
            f"An example needs all of its texts. Received: {len(empty)} {what}, the first is "
            f"example {empty[0]}: {examples[empty[0]]!r:.80}"
        )
    return kind, columns, labels


def _cells(path, suffix):
    """List of (place, cells) of the lines that are not blank."""
    text = read_text(path)
    if suffix == ".csv" and "\t" not in text.lstrip().split("\n", 1)[0]:
        # `strict` makes a quotation mark that is never closed an error; it would swallow the rest.
        reader, rows = csv.reader(io.StringIO(text, newline=""), strict=True), []
        try:
            for cells in reader:
                rows.append((f"{path}, line {reader.line_num}", cells))
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: not CSV: {error}") from None
        return [(place, cells) for place, cells in rows if cells]
    lines = enumerate(text.split("\n"), start=1)
    return [(f"{path}, line {i}", line.split("\t")) for i, line in lines if line.strip(" \r")]


def _json_row(place, row):
    if isinstance(row, str):
        return place, [row], None
    if not isinstance(row, dict):
        raise ValueError(
            f"{place}: expected an object with text1, text2 and score, anchor, positive and "
            f"negatives, or text. Received: {row!r:.80}"
        )
    texts, score = roles(place, row)
    values = list(row.values())
    parts = [values[i] for i in texts[:2]]
    for i in texts[2:]:
        parts += values[i] if isinstance(values[i], list) else [values[i]]
    return place, parts, None if score is None else checked_number(place, values[score])


def _example(place, texts, score):
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{place}: a text must be a string. Received: {text!r:.80}")
    texts = [text.strip() for text in texts]
    if score is not None and len(texts) != 2:
        raise ValueError(
            f"{place}: a score belongs to a pair of texts. Received: {len(texts)} texts and "
            f"{score=}"
        )
    if not all(texts):
        raise ValueError(
            f"{place}: {'one-sided pair' if len(texts) > 1 else 'empty text'}. Expected a text in "
            f"every column. Received: {texts!r:.80}"
        )
    if len(texts) == 1:
        return texts[0]
    return tuple(texts) if score is None else (*texts, score)


def _kind(index, example):
    """(kind, number of texts) of an example."""
    if isinstance(example, str):
        return "texts", 1
    if isinstance(example, (tuple, list)) and len(example) > 1:
        scored = len(example) == 3 and isinstance(example[-1], Real)
        texts = example[:2] if scored else example
        if all(isinstance(text, str) for text in texts):
            return ("scored" if scored else "tuples" if len(texts) > 2 else "pairs"), len(texts)
    raise ValueError(
        "An example is a text, or a tuple (text, text), (text, text, score) or (anchor, positive, "
        f"negative, ...). Received: example {index}, {type(example).__name__}: {example!r:.80}"
    )


def _described(kind):
    kind, width = kind
    return {"texts": "a text", "scored": "two texts and a score"}.get(kind, f"{width} texts")


def _labels(scores):
    with np.errstate(over="ignore"):
        labels = np.array(scores, "float32")
    bad = np.flatnonzero(~np.isfinite(labels))
    if bad.size:
        raise ValueError(
            f"A score must be a finite number. Received: {bad.size} that are not, the first in "
            f"example {bad[0]}: {scores[bad[0]]!r}"
        )
    return labels
