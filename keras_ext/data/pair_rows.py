"""Rows of a file of pairs -> texts and what may be their score."""

import itertools
import re
from typing import NamedTuple

from keras_ext.data.pair_names import (
    Columns,
    columns_of,
    declared_roles,
    is_header,
    mostly,
    refuse_lost_scores,
    refuse_unknown_header,
    refuse_unknown_scores,
    refuse_unknown_texts,
)
from keras_ext.data.pair_scores import WORDS, may_be_score, number

_ABSENT = object()
_BLANK = re.compile(r"\s")


class Row(NamedTuple):
    """One example before its score is read; `key` names the column of the score."""

    place: str
    texts: list
    columns: Columns
    score: object = _ABSENT
    key: object = None

    @property
    def scored(self):
        """Whether there is a score."""
        return self.score is not _ABSENT


def rows_of_cells(rows, declared):
    """`Row`s of a file of columns.

    Args:
        rows: List of (place, cells).
        declared: Dictionary, what the user says of columns, or `None`.
    """
    place, first = rows[0]
    named = any(isinstance(name, str) for name in declared or ())
    if named or is_header(first):
        columns = columns_of(place, first, declared_roles(place, first, declared))
        names, rows = first, rows[1:]
        _check_widths(rows, len(first))
        refuse_lost_scores(place, names, [cells for _, cells in rows], columns)
    elif len(first) >= 7 and first[3].isdigit() and number(first[4]) is not None and not declared:
        # The STS benchmark. Some of its lines name their sources in two more columns.
        rows, names = [(place, cells[:7]) for place, cells in rows], range(7)
        columns = Columns([5, 6], score=4, graded=True)
        _check_widths(rows, 7)
    else:
        _check_widths(rows, len(first))
        names = range(len(first))
        roles = declared_roles(place, None, declared)
        columns = _without_names(place, [cells for _, cells in rows], roles)
    score = columns.score
    for place, cells in rows:
        texts = [cells[i] for i in columns.texts]
        given = () if score is None else (cells[score], names[score])
        yield Row(place, texts, columns, *given)


def rows_of_json(place, row, declared):
    """`Row`s of one value of JSON: several where an anchor has several positives."""
    if isinstance(row, str):
        return [Row(place, [row], Columns([0]))]
    if isinstance(row, list):
        scored = len(row) > 2 and _is_score(row[-1])
        row = {"texts": row[:-1], "score": row[-1]} if scored else {"texts": row}
        return _of_texts(place, row, "the array")
    if not isinstance(row, dict):
        raise ValueError(
            f"{place}: expected an object with text1, text2 and score, anchor, positive and "
            f"negatives, or text; an array of texts; or a text. Received: {row!r:.80}"
        )
    if isinstance(row.get("set"), dict) and len(row) == 1:
        row = row["set"]
    if isinstance(row.get("set"), list) and not declared:
        texts = row["set"]
        if len(texts) < 2:
            raise ValueError(f"{place}: a set needs two texts. Received: set={texts!r:.80}")
        refuse_unknown_scores(place, [(key, [row[key]]) for key in row if key != "set"])
        return [
            Row(place, list(pair), Columns([0, 1])) for pair in itertools.combinations(texts, 2)
        ]
    if isinstance(row.get("texts"), list) and not declared:
        return _of_texts(place, row, "texts")
    names, values = list(row), list(row.values())
    columns = columns_of(place, names, declared_roles(place, names, declared))
    refuse_lost_scores(place, names, [values], columns)
    refuse_unknown_texts(place, names, values, columns)
    score = columns.score
    given = () if score is None else (values[score], names[score])
    first, *others = [values[i] for i in columns.texts]
    if not others:
        return [Row(place, [first], columns, *given)]
    positives, *negatives = map(_listed, others)
    if not positives:
        raise ValueError(f"{place}: no positive. Received: {names[columns.texts[1]]}=[]")
    negatives = [text for several in negatives for text in several]
    return [Row(place, [first, text, *negatives], columns, *given) for text in positives]


def _of_texts(place, row, what):
    """One example of {"texts": [...]} and perhaps a score."""
    texts = row["texts"]
    if len(texts) < 2:
        raise ValueError(f"{place}: expected two texts or more in {what}. Received: {texts!r:.80}")
    others = [name for name in row if name != "texts"]
    columns = columns_of(place, ["text1", "text2", *others], {})._replace(texts=texts)
    if len(texts) == 2 and columns.score is None:
        refuse_unknown_scores(place, [(name, [row[name]]) for name in others])
    if columns.score is None:
        return [Row(place, texts, columns)]
    key = others[columns.score - 2]
    return [Row(place, texts, columns, row[key], key)]


def _listed(value):
    return value if isinstance(value, list) else [value]


def _check_widths(rows, width):
    for place, cells in rows:
        if len(cells) != width:
            raise ValueError(
                f"{place}: wrong number of columns. Expected {width} as in the first line. "
                f"Received: {len(cells)} in {cells!r:.80}"
            )


def _without_names(place, rows, roles):
    """The columns of a file without a header."""
    width = len(rows[0])
    texts = [i for role in ("text1", "text2", "negative") for i in roles if roles[i] == role]
    scores = [i for i in roles if roles[i] == "score" or isinstance(roles[i], tuple)]
    if max([*roles, 0]) >= width or len(scores) > 1:
        raise ValueError(f"{place}: no such columns in {width}. Received: columns={roles}")
    if not roles:
        refuse_unknown_header(place, rows)
    free = [i for i in range(width) if i not in roles]
    numbers = [i for i in free if mostly(rows, i, may_be_score) and width > 1]
    plain = mostly(rows, width - 1, lambda cell: number(cell) is not None)
    if not texts and not scores and numbers[-1:] == [width - 1] and plain:
        scores = [numbers.pop()]
        ids = [cells[0] for cells in rows]
        if numbers == [0] and width > 3 and len(set(ids)) == len(ids) and all(map(_is_count, ids)):
            free.remove(numbers.pop())
        free.remove(scores[0])
    unclear = numbers
    if len(free) > 2:
        unclear += [i for i in (0, width - 1) if i in free and _is_class(rows, i)]
    if unclear:
        where = unclear[0]
        raise ValueError(
            f"{place}: cannot tell what column {where} is. Expected texts, and at most a score "
            "that is a plain number in the last column; or to be told, such as columns={"
            f"{where}: None}} if it is neither. Received: {rows[0][where]!r:.80} in {rows[0]!r:.80}"
        )
    texts = texts or free
    role = roles.get(scores[0]) if scores else None
    return Columns(
        texts,
        len(texts[2:]),
        scores[0] if scores else None,
        role == "score",
        classes=role if isinstance(role, tuple) else None,
    )


def _is_count(cell):
    return cell.strip().isdigit()


def _is_class(rows, column):
    """Whether a column among texts holds names, as of a class or a row: few or only single words."""
    cells = [row[column].strip() for row in rows]
    if any(len(cell) > 20 or _BLANK.search(cell) for cell in cells):
        return False
    few = len(cells) > 3 and len(set(cells)) <= min(5, len(cells) / 2)
    others = [i for i in range(len(rows[0])) if i != column]
    return few or all(mostly(rows, i, lambda cell: _BLANK.search(cell.strip())) for i in others)


def _is_score(value):
    """Whether the last value of an array is one: `"true"` may be an answer, `"0.5"` is no text."""
    if isinstance(value, str):
        return not value.strip().isalpha() and may_be_score(value) or value.strip() in WORDS
    return isinstance(value, (int, float))
