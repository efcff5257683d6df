"""Which columns of a row are the texts of an example, and which is their score."""

import math
import re

_NLI = {"contradiction": 0.0, "neutral": 1.0, "entailment": 2.0}
# What a column, or a key of JSON, may be called: the first text, the second one, the score.
_NAMES = {
    "first": "text1 text_1 text_a sentence1 sentence_1 sentence_a s1 anchor query premise "
    "question1 text sentence",
    "second": "text2 text_2 text_b sentence2 sentence_2 sentence_b s2 positive hypothesis "
    "question2",
    "score": "score label similarity similarity_score gold_label is_duplicate",
}
_ROLES = {name: role for role, names in _NAMES.items() for name in names.split()}
_NEGATIVE = re.compile(r"negatives?_?\d*")


def column_rows(rows):
    """List of (place, texts, score) of rows of cells."""
    place, first = rows[0]
    names = sum(_role(name) is not None for name in first)
    if names >= min(2, len(first)):
        texts, score = roles(place, first)
        rows = rows[1:]
    elif len(first) >= 7 and first[3].isdigit() and _number(first[4]) is not None:
        # Some lines of the STS benchmark name their sources in two more columns.
        rows = [(place, cells[:7]) for place, cells in rows]
        texts, score, first = [5, 6], 4, first[:7]
    else:
        scored = sum(_number(cells[-1]) is not None for _, cells in rows) > len(rows) / 2
        score = len(first) - 1 if scored and len(first) > 1 else None
        texts = [i for i in range(len(first)) if i != score]
    result = []
    for place, cells in rows:
        if len(cells) != len(first):
            raise ValueError(
                f"{place}: wrong number of columns. Expected {len(first)} as in the first line. "
                f"Received: {len(cells)} in {cells!r:.80}"
            )
        number = None if score is None else checked_number(place, cells[score])
        result.append((place, [cells[i] for i in texts], number))
    return result


def roles(place, names):
    """Indices of the texts among named columns, anchor first, and that of the score or None."""
    found = {"first": [], "second": [], "negative": [], "score": [], None: []}
    for index, name in enumerate(names):
        found[_role(name)].append(index)
    first, second, negatives, score, _ = found.values()
    if len(first) != 1 or len(second) > 1 or len(score) > 1 or (negatives and not second):
        raise ValueError(
            f"{place}: cannot tell which are the texts. Expected one name such as text1, and at "
            "most one such as text2 and as score; negatives need a positive. Received: "
            f"{list(names)!r:.200}"
        )
    return first + second + negatives, score[0] if score else None


def checked_number(place, value):
    """The score that a cell or a value of JSON holds."""
    number = _number(value)
    if number is None or not math.isfinite(number):
        raise ValueError(
            f"{place}: not a score. Expected a finite number or one of {list(_NLI)}; a header "
            f"must have known names. Received: {value!r:.80}"
        )
    return number


def _role(name):
    name = name.strip().casefold().replace(" ", "_")
    return "negative" if _NEGATIVE.fullmatch(name) else _ROLES.get(name)


def _number(value):
    if isinstance(value, str) and value.strip().casefold() in _NLI:
        return _NLI[value.strip().casefold()]
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
