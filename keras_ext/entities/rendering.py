import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

from keras_ext.entities.page import read_spans, render_page, stack_levels


def render(
    text: str,
    entities: Iterable,
    format: str = "terminal",
    color: bool = True,
    title: str | None = None,
    width: int | None = None,
) -> str:
    """Shows a text with its entities, nested and crossing ones too.

    In a terminal each line of text is followed by one line of brackets per level, inner entities
    first, and a legend ends it. Wide and combining characters keep the brackets in their columns;
    control and other invisible characters are shown by a stand-in of one cell. A label that does
    not fit into its bracket is cut, and a bracket goes on where its text goes on.

    Args:
        text: The document.
        entities: `Entity` objects, mappings with `start`, `end` and `label`, or
            `(start, end, label)` tuples; character offsets, end exclusive.
        format: `"terminal"`, or `"html"` for a page of its own as `render_page` makes it.
            Defaults to `"terminal"`.
        color: Whether the terminal output is coloured by ANSI codes. Defaults to `True`.
        title: A heading. Defaults to `None`, no heading.
        width: Cells in a line of the terminal, at least 8; `None` asks the terminal, and takes
            100 where there is none. Defaults to `None`.

    Returns:
        The lines without a final line break, or the page.

    Raises:
        ValueError: If an entity is empty or not within the text, or an argument is not as above.

    Example:

    >>> spans = [(0, 14, "organisation"), (8, 14, "place")]
    >>> print(render("Bank of Norway", spans, color=False, width=40))
    Bank of Norway
            └plac┘
    └organisation┘
    ■ organisation 1  ■ place 1
    """
    if format == "html":
        return render_page([(text, entities)], title)
    if format != "terminal":
        raise ValueError(f'The format must be "terminal" or "html". Received: format={format!r}')
    if width is None:
        width = shutil.get_terminal_size((100, 24)).columns
    if width < 8:
        raise ValueError(f"The width must be at least 8 cells. Received: width={width}")
    spans = read_spans(text, entities)
    counts = Counter(label for _, _, label in spans)
    codes = {label: 31 + order % 6 for order, label in enumerate(sorted(counts))}

    def paint(piece, code):
        return f"\x1b[{code}m{piece}\x1b[0m" if color else piece

    cells = _cells(text)
    places = [_whole_cells(cells, start, end) for start, end, _ in spans]
    levels = stack_levels(places)
    lines = [] if title is None else [paint(_shown(title), 1)]
    for first, last in _wrap(text, cells, width):
        lines.append("".join(shown for shown, _ in cells[first:last]))
        columns = [0]
        for _, size in cells[first:last]:
            columns.append(columns[-1] + size)
        for level in range(max(levels, default=-1) + 1):
            row, column = "", 0
            for (start, end), (_, _, label), its_level in zip(places, spans, levels, strict=True):
                if its_level == level and start < last and end > first:
                    left = columns[max(start, first) - first]
                    right = columns[min(end, last) - first]
                    bracket = _bracket(label, right - left, start >= first, end <= last)
                    row += " " * (left - column) + paint(bracket, codes[label])
                    column = right
            if row:
                lines.append(row)
    legend = [f"{paint('■', codes[name])} {_shown(name)} {counts[name]}" for name in sorted(counts)]
    return "\n".join(lines + ["  ".join(legend)] * bool(legend))


def _stand_in(character: str) -> str:
    """What to show for a character that has no cell of its own; "" if it has one."""
    if character in "\n\u2028\u2029":
        return "↵"
    if character == "\t":
        return "⇥"
    if character < " ":
        return chr(0x2400 + ord(character))
    return {"Cc": "�", "Cs": "�", "Cf": "·"}.get(unicodedata.category(character), "")


def _cells(text: str) -> list[tuple[str, int]]:
    """For each character what is shown and how many cells it takes: 0 for a combining one."""
    cells, base = [], False
    for character in text:
        instead = _stand_in(character)
        joins = unicodedata.category(character) in ("Mn", "Me") or "\u1160" <= character <= "\u11ff"
        if instead:
            cells.append((instead, 1))
        elif joins and not base:
            cells.append(("◌" + character, 1))
        elif joins:
            # A variation selector would let some terminals widen the character before it.
            cells.append(("" if "\ufe00" <= character <= "\ufe0f" else character, 0))
        else:
            cells.append((character, 1 + (unicodedata.east_asian_width(character) in "WF")))
        base = not instead
    return cells


def _shown(text: str) -> str:
    return "".join(shown for shown, _ in _cells(text))


def _whole_cells(cells: list, start: int, end: int) -> tuple[int, int]:
    """Widens a span to whole cells, so that one of a combining accent alone can be seen."""
    while not cells[start][1]:
        start -= 1
    while end < len(cells) and not cells[end][1]:
        end += 1
    return start, end


def _wrap(text: str, cells: list, width: int) -> Iterator[tuple[int, int]]:
    """Ranges of characters that fit into a line; breaks after line feeds and, if it can, blanks."""
    first = column = blank = 0
    for place, (_, size) in enumerate(cells):
        before = text[place - 1 : place]
        if before == "\n":
            yield first, place
            first, column = place, 0
        if before == " " and size:
            blank = place
        while size and column + size > width:
            cut = blank if blank > first else place
            yield first, cut
            first, column = cut, sum(cell[1] for cell in cells[cut:place])
        column += size
    if first < len(text):
        yield first, len(text)


def _bracket(label: str, room: int, opens: bool, closes: bool) -> str:
    """A bracket of `room` cells with as much of the label as fits."""
    if room == 1:
        return "─└┘╵"[opens + 2 * closes]
    shown, used = "", 0
    for piece, size in _cells(label):
        if used + size > room - 2:
            break
        shown, used = shown + piece, used + size
    if used + 4 <= room:
        shown, used = f" {shown} ", used + 2
    rest = room - 2 - used
    line = "─" * (rest // 2) + shown + "─" * (rest - rest // 2)
    return ("└" if opens else "─") + line + ("┘" if closes else "─")
