"""Files of sentence pairs -> tuples of texts, with their score where there is one."""

import csv
import io
import re
from pathlib import Path

from keras_ext.data.json_records import read_json
from keras_ext.data.left_out import warn_left_out
from keras_ext.data.pair_rows import rows_of_cells, rows_of_json
from keras_ext.data.pair_scores import number, scores_of
from keras_ext.files.text_file import lines_of, read_text

_TABS = (".tsv", ".txt", ".data")


def read_pairs(path, columns=None, encoding="utf-8"):
    """Read a file of sentence pairs, triplets or bare texts.

    The suffix tells the format: `.tsv`, `.txt` and `.data` are columns with a tab between, where a
    quotation mark is a character like any other; `.csv` is separated by commas or semicolons with
    the usual quotes, or is read as the former if its first line holds a tab; `.jsonl` and `.json`
    hold one value a line or one array. In a file of columns the score is

    - the column that a header names; a header is a first line with at least two known names;
    - the fifth column in the layout of the STS benchmark: genre, file, year, id, score, two texts;
    - else the last column, if it is a number in most lines, and then it must be one in all. A first
      column of integers that are all different counts the rows.

    Known names are those of the public sets: `text1`, `text2`, `sentence1`, `sentence_A`,
    `question1`, `s1`, `anchor`, `query`, `question`, `premise`, `positive`, `pos`, `hypothesis`,
    `answer`, `negative`, `negative_1`, `hard_negatives`, `neg`, `text`, `score`, `label`,
    `similarity`, `gold_label`, `relatedness_score`, `is_duplicate` and some more; columns of other
    names are left out, but numbers and classes beside two texts only if you say so. A first line of
    single words above sentences must be known, or declared. In JSON,
    `positive` and `negatives` may be lists: each positive is an example with all negatives;
    `{"set": [...]}` gives all pairs of it, an array one example.

    Classes of inference, in words or as SNLI's integers under its names, are the scores
    contradiction 0, neutral 1, entailment 2; other files with the integers 0, 1, 2 must say what
    they are. Rows without a label (`-`, or -1 among classes) are left out and counted in a
    `UserWarning`. Blanks around a text are left out, and so are blank lines.

    Args:
        path: The file, any line ends.
        columns: Dictionary from names of the file's columns, or their indices from 0, to what they
            are: `"text1"`, `"text2"`, `"negative"`, `"score"`, `None` for nothing, or the words for
            the classes 0, 1, ..., such as `("entailment", "neutral", "contradiction")`. Defaults to
            `None`: they have known names, or none.
        encoding: Of the file. Defaults to `"utf-8"`.

    Returns:
        A list, all of one form: `(text, text, score)` with a float; `(text, text)`; `(anchor,
        positive, negative, ...)`; or bare strings.

    Raises:
        ValueError: If a side of a pair is empty, a score is NaN or no plain number, lines differ in
            their form, or it cannot be told which columns are texts and score; the message names
            file and line.

    Example:

    ```python
    pairs = read_pairs("train.tsv")  # [("Where is my card?", "My card is lost.", 3.5), ...]
    pairs = read_pairs("ratings.csv", columns={"rating": "score"})
    ```
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".json", ".jsonl"):
        values = enumerate(read_json(path, encoding))
        rows = [
            row
            for i, value in values
            for row in rows_of_json(f"{path}, record {i}", value, columns)
        ]
    elif suffix in _TABS or suffix == ".csv":
        rows = list(rows_of_cells(_cells(path, suffix, encoding), columns))
    else:
        raise ValueError(
            f"{path}: cannot tell the format from the suffix. Expected .csv, .json, .jsonl or one "
            f"of {', '.join(_TABS)}. Received: suffix={suffix!r}"
        )
    if not rows:
        raise ValueError(f"{path}: the file holds no examples. Expected at least one.")
    forms = [f"{len(row.texts)} texts, {'a' if row.scored else 'no'} score" for row in rows]
    for row, form in zip(rows, forms, strict=True):
        if form != forms[0]:
            raise ValueError(
                f"{row.place}: all examples of a file must have one form. Expected {forms[0]}, as "
                f"in the first. Received: {form}"
            )
    examples = [_texts(row) for row in rows]
    if not rows[0].scored:
        return [texts[0] if len(texts) == 1 else texts for texts in examples]
    first, places, values = rows[0], [row.place for row in rows], [row.score for row in rows]
    scores = scores_of(places, values, first.columns, first.key)
    examples = [
        (*texts, score) for texts, score in zip(examples, scores, strict=True) if score is not None
    ]
    if not examples:
        raise ValueError(f"{path}: no row has a label. Received: {values[0]!r} in all rows")
    warn_left_out(path, {f"of {len(rows)} rows, which have no label": len(rows) - len(examples)})
    return examples


def _cells(path, suffix, encoding):
    """List of (place, cells) of the lines that are not blank."""
    text = read_text(path, encoding)
    first = text.lstrip().split("\n", 1)[0]
    if suffix == ".csv" and "\t" not in first:
        separator = ";" if first.count(";") > first.count(",") else ","
        rows = list(_csv(path, text, separator))
    else:
        lines = enumerate(lines_of(text), start=1)
        rows = [(f"{path}, line {i}", line.split("\t")) for i, line in lines if line.strip(" ")]
    if all(len(cells) == 1 for _, cells in rows):
        _refuse_other_separators(path, [cells[0] for _, cells in rows])
    return rows


def _csv(path, text, separator):
    # `strict` makes a quotation mark that is never closed an error; it would swallow the rest.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for cells in reader:
            if cells:
                yield f"{path}, line {reader.line_num}", cells
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not CSV: {error}") from None


def _refuse_other_separators(path, lines):
    """Texts of one column that are JSON, or columns with something else between."""
    if all(line.lstrip()[:1] in ("{", "[") and line.rstrip()[-1:] in ("}", "]") for line in lines):
        raise ValueError(
            f"{path}: the lines look like JSON. Expected columns, or the suffix .jsonl. Received: "
            f"{lines[0]!r:.80}"
        )
    for separator in ("||", "|", ";", ",", "  "):
        pattern = " {2,}" if separator == "  " else re.escape(separator)
        parts = [re.split(pattern, line.strip()) for line in lines]
        widths = {len(cells) for cells in parts}
        scored = sum(number(cells[-1]) is not None for cells in parts) > len(parts) / 2
        # A comma or two blanks in every line may be chance, a bar or semicolon hardly.
        bare = separator == "||" or separator in "|;" and len(lines) > 1
        if len(widths) == 1 and (min(widths) > 2 and scored or bare and min(widths) > 1):
            raise ValueError(
                f"{path}: the lines look like {min(widths)} columns with {separator!r} between. "
                f"Expected tabs between, or a .csv file. Received: {lines[0]!r:.80}"
            )


def _texts(row):
    """The texts of an example, without the blanks around them."""
    for text in row.texts:
        if not isinstance(text, str):
            raise ValueError(f"{row.place}: a text must be a string. Received: {text!r:.80}")
    texts = tuple(text.strip() for text in row.texts)
    if row.scored and len(texts) != 2:
        raise ValueError(
            f"{row.place}: a score belongs to a pair of texts. Received: {len(texts)} texts and "
            f"score={row.score!r:.80}"
        )
    if not all(texts):
        raise ValueError(
            f"{row.place}: {'one-sided pair' if len(texts) > 1 else 'empty text'}. Expected a text "
            f"in every column. Received: {texts!r:.80}"
        )
    return texts
