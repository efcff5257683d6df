"""Lines of a column file -> sentences of columns: comments, blanks and separators."""

import re

# A line of words about what follows. `#` may be a token, and `#word` always is one.
_COMMENT = re.compile(r"#(\s|$|##|begin document|end document)")
_TAG = re.compile(r"O|[BIMESLU]-.+")
# What says the parts of a sentence, not its entities.
_CHUNKS = set("NP VP PP ADVP SBAR ADJP PRT CONJP INTJ LST UCP".split())


def sentences_of(path, lines):
    """Sentences of a column file.

    Columns are separated by tabs if the first line of columns has one; by one blank if that gives
    every line as many columns, so that a blank can be a token; else by any number of blanks. A line
    that begins a sentence with `# ` or `###`, and is no line of columns with a tag, is a comment.

    Args:
        path: The file, for messages.
        lines: List of strings.

    Returns:
        List of sentences, lists of (line number, columns), all of one width.

    Raises:
        ValueError: If a line has another number of columns than the first, or line ends are mixed.
    """
    numbered = list(enumerate(lines, start=1))
    columns = [line for _, line in numbered if not _ends_sentence(line)]
    columns = [line for line in columns if not _COMMENT.match(line)] or columns
    if not columns:
        return []
    split = _splitter(columns)
    width = len(split(columns[0]))
    sentences, rows = [], []
    for number, line in [*numbered, (None, "")]:  # the blank line closes the last sentence
        if _ends_sentence(line):
            if rows:
                sentences.append(rows)
                rows = []
            continue
        if "\r" in line.strip():
            raise ValueError(
                f"{path}, line {number}: line ends of two kinds, \\n and \\r. Expected one. "
                f"Received: {line!r:.80}"
            )
        found = split(line)
        if not rows and _COMMENT.match(line) and not _tagged(found, width):
            continue
        if len(found) != width:
            raise ValueError(
                f"{path}, line {number}: wrong number of columns. Expected {width} as in the first "
                f"line. Received: {len(found)} in {line!r:.80}"
            )
        rows.append((number, found))
    return sentences


def is_tag(cell):
    """Whether a cell is a tag of BIO, BMES, BIOES or BILOU."""
    return _TAG.fullmatch(cell) is not None


def tag_columns_of(sentences, token_column):
    """The columns that hold the tags of entities: mostly tags, and no chunks of syntax.

    Args:
        sentences: What `sentences_of` gives, not empty.
        token_column: Index of the column with the token, from the left.

    Returns:
        List of indices; the last column if none qualifies.
    """
    rows = [columns for sentence in sentences for _, columns in sentence]
    others = [i for i in range(len(rows[0])) if i != token_column]
    if len(others) < 2:
        return others
    tags = [i for i in others if sum(is_tag(row[i]) for row in rows) >= len(rows) / 2]
    entities = [
        i for i in tags if not {row[i].partition("-")[2] or "NP" for row in rows} <= _CHUNKS
    ]
    return entities or tags[-1:] or others[-1:]


def _ends_sentence(line):
    return not line.strip() or line.startswith("-DOCSTART-")


def _tagged(columns, width):
    return len(columns) == width and any(is_tag(cell) for cell in columns[1:])


def _splitter(lines):
    """The function that splits a line of these."""
    if "\t" in lines[0].strip(" \t"):
        width = len(lines[0].rstrip(" \t").split("\t"))

        def tabs(line):
            cells = line.split("\t")
            while len(cells) > width and not cells[-1].strip():
                cells.pop()
            return cells

        return tabs
    width = len(_one_blank(lines[0]))
    if all(len(cells) == width and all(cells) for cells in map(_one_blank, lines)):
        return _one_blank
    return lambda line: re.split("[ \t]+", line.strip(" \t"))


def _one_blank(line):
    """Columns with one blank between; the first may be a blank itself."""
    line = line.rstrip(" ")
    if line.startswith("  "):
        return [" ", *line[2:].split(" ")]
    return line.split(" ")
