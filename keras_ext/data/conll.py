"""Column files -> records: one token a line, a blank line between sentences."""

import re
import warnings

from keras_ext.data.files import read_text
from keras_ext.data.records import check_records

# B starts, M continues, E ends, S stands alone; BIOES and BILOU say the same in other letters.
_LETTERS = {
    "BIO": {"B": "B", "I": "M"},
    "IOB1": {"B": "B", "I": "M"},
    "BMES": {"B": "B", "M": "M", "I": "M", "E": "E", "L": "E", "S": "S", "U": "S"},
}


def read_conll(path, scheme="auto", token_column=0, tag_columns=None, separator=" "):
    """Read a column file; the text of a record is its tokens joined by `separator`.

    Columns are split at tabs if the first line has one, else at blanks. A blank line ends a
    sentence, `-DOCSTART-` lines are skipped. Several tag columns are layers of nested entities.

    A tag that continues an entity where none of its type is open starts a new one, and an entity
    without its last tag ends where the next begins, as in the CoNLL scorer. In `"BIO"` and
    `"BMES"` such tags are errors of the file: they are counted in one `UserWarning`.

    Args:
        path: The file, UTF-8, any line ends.
        scheme: `"BIO"`, `"IOB1"` (B- only between touching entities of one type) or `"BMES"` (also
            spelt BIOES or BILOU). `"auto"` reads it off the tags. Defaults to `"auto"`.
        token_column: Index of the column with the token. Defaults to 0.
        tag_columns: Indices of the columns with tags. Defaults to `None`, all others.
        separator: String between tokens; `""` for Chinese characters. Defaults to `" "`.

    Returns:
        List of records.

    Raises:
        ValueError: If the file is empty, a line has another number of columns than the first, or
            a tag is malformed; the message names file and line.

    Example:

    ```python
    records = read_conll("train.conll")
    records = read_conll("germeval.tsv", token_column=1, tag_columns=(2, 3))
    ```
    """
    if scheme != "auto" and scheme not in _LETTERS:
        raise ValueError(
            f"unknown scheme. Expected 'auto' or one of {sorted(_LETTERS)}. Received: "
            f"scheme={scheme!r}"
        )
    sentences = _sentences(path, token_column, tag_columns)
    if scheme == "auto":
        scheme = _scheme([layer for _, layers in sentences for layer in layers])
    records, repaired = [], 0
    for tokens, layers in sentences:
        starts = [0]
        for token in tokens:
            starts.append(starts[-1] + len(token) + len(separator))
        entities = []
        for layer in layers:
            spans, odd = _spans(layer, _LETTERS[scheme], path, scheme)
            repaired += odd
            for label, first, last in spans:
                end = starts[last] + len(tokens[last])
                entities.append({"start": starts[first], "end": end, "label": label})
        records.append({"text": separator.join(tokens), "entities": entities})
    if repaired and scheme != "IOB1":
        warnings.warn(
            f"{path}: {repaired} tags do not fit the scheme {scheme}; each was taken to start or "
            "end an entity, as the CoNLL scorer does.",
            stacklevel=2,
        )
    return check_records(records, source=str(path))


def _sentences(path, token_column, tag_columns):
    """List of (tokens, layers); a layer is a list of (prefix, label, line number)."""
    sentences, rows, tab, width = [], [], None, None
    # The blank line at the end closes the last sentence.
    for number, line in enumerate([*read_text(path).split("\n"), ""], start=1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            if rows:
                tokens, tags = zip(*rows, strict=True)
                sentences.append((tokens, list(zip(*tags, strict=True))))
                rows = []
            continue
        if tab is None:
            tab = "\t" in line.rstrip()
        columns = line.rstrip(" \t\r").split("\t") if tab else re.split("[ \t]+", line.strip())
        if width is None:
            width = len(columns)
            token_column, tag_columns = _columns(path, width, token_column, tag_columns)
        if len(columns) != width:
            raise ValueError(
                f"{path}, line {number}: wrong number of columns. Expected {width} as in the first "
                f"line. Received: {len(columns)} in {line!r:.80}"
            )
        if not columns[token_column]:
            raise ValueError(f"{path}, line {number}: empty token. Received: {line!r:.80}")
        tags = [_tag(columns[column], path, number) for column in tag_columns]
        rows.append((columns[token_column], tags))
    return sentences


def _columns(path, width, token_column, tag_columns):
    """Check the column indices and return them counted from the left."""
    token, tags = token_column, tag_columns
    if -width <= token < width:
        token %= width
        tags = [i for i in range(width) if i != token] if tags is None else list(tags)
        if tags and all(-width <= i < width and i % width != token for i in tags):
            return token, [i % width for i in tags]
    raise ValueError(
        f"{path}: no such columns. Expected a token and at least one tag column in {width} "
        f"columns. Received: token_column={token_column}, tag_columns={tag_columns}"
    )


def _tag(tag, path, number):
    prefix, dash, label = tag.partition("-")
    if tag == "O" or (dash and label and prefix in _LETTERS["BMES"]):
        return prefix, label, number
    raise ValueError(
        f"{path}, line {number}: malformed tag. Expected O or a letter of BIO, BMES, BIOES or "
        f"BILOU, a dash and a label (name other columns out with tag_columns). Received: {tag!r}"
    )


def _scheme(layers):
    prefixes = {prefix for layer in layers for prefix, _, _ in layer}
    if prefixes - {"B", "I", "O"}:
        return "BMES"
    for layer in layers:
        previous = None
        for prefix, label, _ in layer:
            if prefix == "B" and previous != label:
                return "BIO"
            previous = label
    return "IOB1"


def _spans(layer, letters, path, scheme):
    """Spans (label, first, last) of one layer, and how many tags did not fit the scheme."""
    spans, odd, first, open_label = [], 0, None, None
    for index, (prefix, label, number) in enumerate([*layer, ("O", "", None)]):
        letter = letters.get(prefix)
        if letter is None and prefix != "O":
            raise ValueError(
                f"{path}, line {number}: malformed tag for scheme {scheme}. Expected O or one of "
                f"{sorted(letters)}. Received: {prefix}-{label}"
            )
        continues = letter in ("M", "E") and open_label == label
        if not continues:
            if open_label is not None:
                spans.append((open_label, first, index - 1))
                odd += scheme == "BMES"  # it had no last tag
            odd += letter in ("M", "E")  # it had no first tag
            first, open_label = index, label if letter else None
        if letter in ("E", "S"):
            spans.append((label, first, index))
            open_label = None
    return spans, odd
