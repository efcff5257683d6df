"""Scores and classes as files have them -> numbers of which the higher means more alike."""

import math
import re

# Of inference; their order is all that counts.
WORDS = {
    **dict.fromkeys(("contradiction", "contradicts", "not_entailment", "non-entailment"), 0.0),
    "neutral": 1.0,
    **dict.fromkeys(("entailment", "entails"), 2.0),
}
_TRUTH = {"true": 1.0, "false": 0.0}
_INTEGER = re.compile(r"[-+]?\d+")
# Numbers to people, not to a program: 85%, 4/5, 3,5.
_ODD = re.compile(r"[-+]?\d+([.,]\d+)*\s*(%|/\s*\d+([.,]\d+)?)?")
_NONE = ("-", "-1")


def number(value):
    """The number that a cell or a value of JSON is, or `None`."""
    if isinstance(value, str):
        word = value.strip().casefold()
        if word in WORDS or word in _TRUTH:
            return {**WORDS, **_TRUTH}[word]
        if "_" in word:  # which Python takes for a separator of digits
            return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def is_odd(value):
    """Whether a cell looks like a score and is no plain number."""
    return (
        isinstance(value, str)
        and number(value) is None
        and _ODD.fullmatch(value.strip()) is not None
    )


def may_be_score(value):
    """Whether a cell or a value of JSON holds numbers and nothing else, plain ones or not."""
    if isinstance(value, (list, dict)):
        parts = value.values() if isinstance(value, dict) else value
        return bool(value) and all(map(may_be_score, parts))
    return number(value) is not None or is_odd(value)


def scores_of(places, values, columns, key):
    """The scores of the rows of a file.

    Args:
        places: List of strings, for messages.
        values: List of what the rows hold.
        columns: A `Columns`.
        key: Name or index of the column, for messages.

    Returns:
        List of floats, `None` for rows that have no label: `-`, or -1 among classes.
    """
    if columns.classes is not None:
        classes = [WORDS.get(word.casefold()) for word in columns.classes]
        if None in classes:
            raise ValueError(
                f"{places[0]}: unknown classes. Expected words among {list(WORDS)}. Received: "
                f"{columns.classes}"
            )
        return [_of_classes(*row, classes) for row in zip(places, values, strict=True)]
    if columns.graded:
        return [_checked(*row) for row in zip(places, values, strict=True)]
    words = {value.strip().casefold() for value in values if isinstance(value, str)}
    none = _NONE if words & WORDS.keys() else ("-",)
    scores = [
        None if isinstance(value, str) and value.strip() in none else _checked(place, value)
        for place, value in zip(places, values, strict=True)
    ]
    given = [value for value, score in zip(values, scores, strict=True) if score is not None]
    if words & WORDS.keys() or not all(map(_is_integer, given)):
        return scores
    found = {int(score) for score in scores if score is not None}
    if found <= {-1}:
        raise ValueError(f"{places[0]}: no row has a label. Received: {values[0]!r} in all rows")
    if not found <= {-1, 0, 1, 2} or found == {-1, 1}:
        return scores
    if columns.inference and 2 in found:  # as SNLI and MNLI count: entailment, neutral, ...
        return [None if score in (None, -1.0) else 2.0 - score for score in scores]
    # All three classes have a 0 and a 2, and classes without them look like 0 and 1 of any kind.
    if -1 not in found and not {0, 2} <= found and not columns.inference:
        return scores
    raise ValueError(
        f"{places[0]}: the integers of {key!r} may be grades or classes, of which the first may be "
        f"entailment. Expected to be told: columns={{{key!r}: 'score'}} for grades, or the classes, "
        f"columns={{{key!r}: ('entailment', 'neutral', 'contradiction')}}. Received: the values "
        f"{sorted(found)}"
    )


def _of_classes(place, value, classes):
    word = str(value).strip().casefold()
    if word in _NONE:
        return None
    if word in WORDS:
        return WORDS[word]
    if _is_integer(value) and 0 <= int(value) < len(classes):
        return classes[int(value)]
    raise ValueError(
        f"{place}: not a class. Expected an integer below {len(classes)} or one of {list(WORDS)}. "
        f"Received: {value!r:.80}"
    )


def _checked(place, value):
    found = number(value)
    if found is None or not math.isfinite(found):
        kind = "a score, but not a plain number" if is_odd(value) else "not a score"
        raise ValueError(
            f"{place}: {kind}. Expected a finite number such as 0.85, or one of {list(WORDS)}; a "
            f"header must have known names. Received: {value!r:.80}"
        )
    return found


def _is_integer(value):
    return (
        isinstance(value, int) or isinstance(value, str) and bool(_INTEGER.fullmatch(value.strip()))
    )
