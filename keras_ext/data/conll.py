"""Column files -> records: one token a line, a blank line between sentences."""

import re
import unicodedata
import warnings

from keras_ext.data.conll_lines import is_tag, sentences_of, tag_columns_of
from keras_ext.data.records import check_records
from keras_ext.files.text_file import lines_of, read_text

# B starts, M continues, E ends, S stands alone; BIOES and BILOU say the same in other letters.
_LETTERS = {
    "BIO": {"B": "B", "I": "M"},
    "IOB1": {"B": "B", "I": "M"},
    "BMES": {"B": "B", "M": "M", "I": "M", "E": "E", "L": "E", "S": "S", "U": "S"},
}
_NUMBER = re.compile(r"\d+([-.]\d+)?")


def read_conll(
    path, scheme="auto", token_column=0, tag_columns=None, separator=None, encoding="utf-8"
):
    """Read a column file; the text of a record is its tokens joined by `separator`.

    Columns are separated by tabs if the first line has one; by one blank if that gives every line
    as many columns, so that a blank of any kind can be a token; else by any number of blanks. A
    blank line ends a sentence. `-DOCSTART-` lines are skipped, and so are comments: lines before a
    sentence that begin with `#` and a blank or tab, or with `###`, and are no columns with a tag.
    Several tag columns are layers of nested entities.

    A tag that continues an entity where none of its type is open starts a new one, and an entity
    without its last tag ends where the next begins, as in the CoNLL scorer. In `"BIO"` and
    `"BMES"` such tags are errors of the file: they are counted in one `UserWarning`.

    Args:
        path: The file, any line ends.
        scheme: `"BIO"`, `"IOB1"` (B- only between touching entities of one type) or `"BMES"` (also
            spelt BIOES or BILOU). `"auto"` reads it off the tags. Defaults to `"auto"`.
        token_column: Index of the column with the token. Defaults to 0.
        tag_columns: Indices of the columns with tags. Defaults to `None`: those of which at least
            half of the cells are tags, without the chunks of syntax of CoNLL-2003.
        separator: String between tokens. Defaults to `None`: `""` if most tokens are single wide
            characters, as in Chinese files, else `" "`.
        encoding: Of the file. Defaults to `"utf-8"`.

    Returns:
        List of records.

    Raises:
        ValueError: If the file is empty, a line has another number of columns than the first, the
            tokens are numbers that count them, or a tag is malformed; the message names file and
            line.

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
    sentences = _layers(path, encoding, token_column, tag_columns)
    if scheme == "auto":
        scheme = _scheme([layer for _, layers in sentences for layer in layers])
    if separator is None:
        wide = [_is_wide(token) for tokens, _ in sentences for token in tokens]
        separator = "" if sum(wide) > len(wide) / 2 else " "
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


def _layers(path, encoding, token_column, tag_columns):
    """List of (tokens, layers); a layer is a list of (prefix, label, line number)."""
    sentences = sentences_of(path, lines_of(read_text(path, encoding)))
    if not sentences:
        return []
    token_column, tag_columns = _columns(path, sentences, token_column, tag_columns)
    result = []
    for sentence in sentences:
        tokens, tags = [], []
        for number, columns in sentence:
            if not columns[token_column]:
                raise ValueError(
                    f"{path}, line {number}: empty token. Expected a character, or a blank and one "
                    f"more between the columns. Received: {columns!r:.80}"
                )
            tokens.append(columns[token_column])
            tags.append([_tag(columns[column], path, number) for column in tag_columns])
        result.append((tokens, list(zip(*tags, strict=True))))
    return result


def _columns(path, sentences, token_column, tag_columns):
    """Check the column indices and return them counted from the left."""
    width = len(sentences[0][0][1])
    token, tags = token_column, tag_columns
    if -width <= token < width:
        token %= width
        tags = tag_columns_of(sentences, token) if tags is None else list(tags)
        if width > 2 and all(_counts(sentence, token) for sentence in sentences):
            raise ValueError(
                f"{path}: column {token} counts the tokens. Expected the tokens themselves: pass "
                f"token_column={token + 1}, or which it is. Received: token_column={token_column}"
            )
        if tags and all(-width <= i < width and i % width != token for i in tags):
            return token, [i % width for i in tags]
    raise ValueError(
        f"{path}: no such columns. Expected a token and at least one tag column in {width} "
        f"columns. Received: token_column={token_column}, tag_columns={tag_columns}"
    )


def _counts(sentence, column):
    cells = [columns[column] for _, columns in sentence]
    return cells[0] in ("0", "1") and all(map(_NUMBER.fullmatch, cells))


def _is_wide(token):
    return len(token) == 1 and unicodedata.east_asian_width(token) in "WF"


def _tag(tag, path, number):
    prefix, _, label = tag.strip().partition("-")
    if is_tag(tag.strip()):
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
