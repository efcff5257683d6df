"""What a file of pairs may lose silently: scores, texts and headers under names not known."""

import re

from keras_ext.data.pair_names import is_id, is_judgement
from keras_ext.data.pair_scores import is_odd, number

_BLANK = re.compile(r"\s")
_NAME = re.compile(r"[A-Za-z_]\w{0,19}", re.ASCII)


def refuse_lost_scores(place, names, rows, columns):
    """Two texts without a score beside numbers or judgements of no known name may have lost it."""
    if columns.score is None and len(columns.texts) - columns.negatives == 2:
        known = (*columns.texts, *columns.ignored)
        others = [(i, name) for i, name in enumerate(names) if i not in known]
        refuse_unknown_scores(place, [(name, [row[i] for row in rows]) for i, name in others])


def refuse_unknown_scores(place, columns):
    """Raise if one of the columns, tuples of a name and its values, may be the score."""
    for name, values in columns:
        judged = is_judgement(name) and any(value not in ("", None) for value in values)
        if not is_id(name) and (judged or sum(map(may_be_score, values)) > len(values) / 2):
            raise ValueError(
                f"{place}: the column {name!r} holds numbers or classes and has no known name. "
                f"Expected to be told: columns={{{name!r}: 'score'}}, or columns={{{name!r}: "
                f"None}} if it is none. Received: {name}={values[0]!r:.80}"
            )


def refuse_unknown_texts(place, names, values, columns):
    """One text beside a list of texts of no known name may have lost its positives."""
    if len(columns.texts) > 1:
        return
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        lists = isinstance(value, list) and value and all(isinstance(text, str) for text in value)
        if lists and index not in (*columns.texts, *columns.ignored):
            raise ValueError(
                f"{place}: {name!r} holds texts and has no known name. Expected to be told: "
                f"columns={{{name!r}: None}} if they are nothing, or 'text2' and the name of the "
                f"other text as 'text1'. Received: {name}={value!r:.80}"
            )


def refuse_unknown_header(place, rows):
    """A first line of names above sentences is a header, though the names are not known."""
    first, others = rows[0], rows[1:]
    names = len(first) > 1 and len(set(first)) == len(first) and all(map(_NAME.fullmatch, first))
    if names and others and all(mostly(others, i, _is_sentence) for i in range(len(first))):
        raise ValueError(
            f"{place}: the first line looks like names of columns, which are not known. Expected "
            f"to be told: columns={{{first[0]!r}: 'text1', {first[1]!r}: 'text2'}}, or by indices, "
            f"columns={{0: 'text1', 1: 'text2'}}, if these are texts. Received: {first!r:.80}"
        )


def mostly(rows, column, test):
    """Whether a test holds in most cells of a column."""
    return sum(bool(test(cells[column])) for cells in rows) > len(rows) / 2


def _is_sentence(cell):
    return _BLANK.search(cell.strip()) is not None or not cell.isascii()


def may_be_score(value):
    """Whether a cell or a value of JSON holds numbers and nothing else, plain ones or not."""
    if isinstance(value, (list, dict)):
        parts = value.values() if isinstance(value, dict) else value
        return bool(value) and all(map(may_be_score, parts))
    return number(value) is not None or is_odd(value)
