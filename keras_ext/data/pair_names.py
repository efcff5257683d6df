"""What the columns of a file of pairs are, by their names, and what unknown names may hide."""

import collections
import re
from typing import NamedTuple

from keras_ext.data.pair_scores import may_be_score

# Names are compared in lower case without blanks, lines, dots and hyphens.
_SEPARATORS = re.compile(r"[\s_.\-]+")
# text1 and text2, sentence_A and sentence_B, "#1 String" and "#2 String": the lower is the first.
_NUMBERED = re.compile(r"(text|sentence|sent|s|q|question|query|phrase|title)([0-9ab])|#(\d)string")
_FIRST = {"anchor", "query", "question", "premise", "text", "sentence"}
_SECOND = {
    "positive",
    "positives",
    "pos",
    "hypothesis",
    "answer",
    "passage",
    "document",
    "response",
}
_BARE = {"text", "sentence"}
_NEGATIVE = re.compile(r"(hard)?neg(ative)?s?\d*")
# The score is the first kind of these that there is; two of the middle kinds are one too many.
_RELATEDNESS = {"relatednessscore", "relatedness"}
_GRADED = set("score similarity similarityscore sim gold goldscore labelscore".split())
_CLASS = set("label goldlabel isduplicate quality".split())
_ENTAILMENT = set("entailmentlabel entailmentjudgment entailmentjudgement".split())
_ID = re.compile(r"(.*[^a-z])?(id|idx|index|guid|uid)\d*|q?id\d*|unnamed:.*|year|")
# Names of what people judged, in whatever words.
_JUDGEMENT = re.compile(r".*(score|label|class|rating|grade|judg|verdict|relevan|similar|gold).*")
_BLANK = re.compile(r"\s")
_WORD = re.compile(r"[A-Za-z_]\w{0,19}", re.ASCII)
_ROLES = ("text1", "text2", "negative", "score", None)


class Columns(NamedTuple):
    """The columns of an example, by their indices.

    Attributes:
        texts: the one text, or the two, and then the negatives.
        negatives: how many of the texts are negatives.
        score: that of the score, or `None`.
        graded: whether the score is known to be a number and no class.
        inference: whether the names are those of natural language inference.
        classes: tuple of words, what the classes 0, 1, ... mean, or `None`.
        ignored: those of which somebody said that they are nothing.
    """

    texts: list
    negatives: int = 0
    score: int | None = None
    graded: bool = False
    inference: bool = False
    classes: tuple | None = None
    ignored: tuple = ()


def is_header(cells):
    """Whether the first line of a file names its columns."""
    known = sum(map(_is_known, cells))
    ids = sum(bool(cell) and _is_id(cell) for cell in cells)
    return known > 0 and known + ids >= min(2, len(cells))


def _is_known(name):
    plain = _plain(name)
    scores = _RELATEDNESS | _GRADED | _CLASS | _ENTAILMENT
    return (
        plain in _FIRST | _SECOND | scores
        or (_NUMBERED.fullmatch(plain) or _NEGATIVE.fullmatch(plain)) is not None
    )


def _is_id(name):
    """Whether a name is one of numbers that tell rows apart."""
    return _ID.fullmatch(name.strip().lower()) is not None or name.endswith("ID")


def declared_roles(place, names, columns):
    """Index -> role of the columns of which the user says what they are.

    Args:
        place: For messages.
        names: List of strings, the header, or `None` without one.
        columns: Dictionary from a name or an index to a role.
    """
    roles = {}
    count = len(names) if names is not None else None
    for name, role in (columns or {}).items():
        index = name if isinstance(name, int) else None
        if isinstance(name, str) and names is not None and name in names:
            index = names.index(name)
        if index is None or (count is not None and not 0 <= index < count):
            raise ValueError(
                f"{place}: no such column. Expected a name of the header or an index as a key of "
                f"columns. Received: {name!r}, where there are {names or 'no names'}"
            )
        words = not isinstance(role, str) and role is not None
        if role not in _ROLES if not words else not all(isinstance(word, str) for word in role):
            raise ValueError(
                f"{place}: unknown role. Expected one of {_ROLES} or a tuple of the words for the "
                f"classes 0, 1, ... as a value of columns. Received: {name!r}: {role!r}"
            )
        roles[index] = tuple(role) if words else role
    return roles


def columns_of(place, names, roles):
    """The columns of an example among named ones.

    Args:
        place: For messages.
        names: List of strings.
        roles: What `declared_roles` gives.
    """
    free = [index for index in range(len(names)) if index not in roles]
    texts = [i for role in ("text1", "text2") for i in roles if roles[i] == role]
    texts = texts or _texts(place, names, free)
    negatives = [i for i in roles if roles[i] == "negative"]
    negatives += [i for i in free if _NEGATIVE.fullmatch(_plain(names[i]))]
    scores = [i for i in roles if roles[i] == "score" or isinstance(roles[i], tuple)]
    graded = bool(scores)
    if not scores:
        scores, graded = _scores(names, free)
    strange = [i for i in free if i not in negatives and "neg" in _plain(names[i])]
    if len(scores) > 1 or strange or (negatives and len(texts) < 2):
        raise _cannot_tell(place, names)
    score = scores[0] if scores else None
    plain = {_plain(names[i]) for i in [*texts, *scores]}
    role = roles.get(score)
    return Columns(
        texts + negatives,
        len(negatives),
        score,
        graded and not isinstance(role, tuple),
        {"premise", "hypothesis"} <= plain or "goldlabel" in plain,
        role if isinstance(role, tuple) else None,
        tuple(i for i in roles if roles[i] is None),
    )


def _plain(name):
    return _SEPARATORS.sub("", name.casefold())


def _texts(place, names, free):
    """Indices of the two texts, or of the one."""
    numbered, firsts, seconds = collections.defaultdict(list), [], []
    for index in free:
        plain = _plain(names[index])
        match = _NUMBERED.fullmatch(plain)
        if match:
            numbered[match[1]].append((match[2] or match[3], index))
        elif plain in _FIRST:
            firsts.append(index)
        elif plain in _SECOND:
            seconds.append(index)
    pairs = [sorted(group) for group in numbered.values()]
    if not seconds and len(firsts) == 2:  # a question and the sentence that may answer it
        firsts.sort(key=lambda i: _plain(names[i]) in _BARE)
        if [_plain(names[i]) in _BARE for i in firsts] == [False, True]:
            seconds = [firsts.pop()]
    if len(pairs) == 1 and not firsts and not seconds:
        if [number for number, _ in pairs[0]] in (["0", "1"], ["1", "2"], ["a", "b"]):
            return [index for _, index in pairs[0]]
    elif not pairs and len(firsts) == 1 and len(seconds) == 1:
        return firsts + seconds
    elif not pairs and len(firsts) == 1 and not seconds:
        if _plain(names[firsts[0]]) in _BARE or len(names) == 1:
            return firsts
    raise _cannot_tell(place, names)


def _scores(names, free):
    """Indices of what may be the score, and whether it is a number and no class."""
    plain = {index: _plain(names[index]) for index in free}
    found = [i for i in free if plain[i] in _RELATEDNESS]
    if found:
        return found, True
    found = [i for i in free if plain[i] in _GRADED | _CLASS]
    found = found or [i for i in free if plain[i] in _ENTAILMENT]
    return found, len(found) == 1 and plain[found[0]] in _GRADED


def _cannot_tell(place, names):
    return ValueError(
        f"{place}: cannot tell which are the texts, negatives and the score. Expected one text, or "
        "two such as text1 and text2, or anchor and positive, at most one score, and negatives "
        "beside two texts; or to be told by columns, such as columns={'left': 'text1', 'right': "
        f"'text2', 'rating': 'score'}}. Received: {list(names)!r:.200}"
    )


def refuse_lost_scores(place, names, rows, columns):
    """Two texts without a score beside numbers or judgements of no known name may have lost it."""
    if columns.score is None and len(columns.texts) - columns.negatives == 2:
        known = (*columns.texts, *columns.ignored)
        others = [(i, name) for i, name in enumerate(names) if i not in known]
        refuse_unknown_scores(place, [(name, [row[i] for row in rows]) for i, name in others])


def refuse_unknown_scores(place, columns):
    """Raise if one of the columns, tuples of a name and its values, may be the score."""
    for name, values in columns:
        given = [value for value in values if value not in ("", None)]
        judged = given and _JUDGEMENT.fullmatch(_plain(name))
        if not _is_id(name) and (judged or sum(map(may_be_score, values)) > len(values) / 2):
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
    names = len(first) > 1 and len(set(first)) == len(first) and all(map(_WORD.fullmatch, first))
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
