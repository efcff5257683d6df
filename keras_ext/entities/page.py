import unicodedata
from collections import Counter
from collections.abc import Iterable
from html import escape
from itertools import pairwise

from keras_ext.metrics.entity_scores import as_triple

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf8; --card: #fff; --ink: #23211f; --faint: #8a857e;
  --edge: #e7e3dd; --tone: 42%; }
@media (prefers-color-scheme: dark) { :root { --paper: #161718; --card: #1f2123; --ink: #e6e3de;
  --faint: #8f8b85; --edge: #34373a; --tone: 66%; } }
body { max-width: 46rem; margin: 2.5rem auto; padding: 0 1.25rem; background: var(--paper);
  color: var(--ink); font: 17px/1.5 "Iowan Old Style", Charter, Georgia, "Noto Serif", serif; }
h1 { font-size: 1.5rem; font-weight: 600; margin: 0 0 .75rem; }
ul { display: flex; flex-wrap: wrap; gap: .35rem 1.4rem; list-style: none; margin: 0 0 1.5rem;
  padding: 0; font: 13px/1.6 system-ui, sans-serif; }
li::before { content: ""; display: inline-block; width: 1.5em; height: .22em; margin-right: .5em;
  border-radius: 1em; vertical-align: .25em; background: var(--c); }
li small { color: var(--faint); font-size: 1em; margin-left: .3em; }
article { margin: 0 0 .8rem; padding: .7rem 1.1rem .8rem; background: var(--card);
  border: 1px solid var(--edge); border-radius: .5rem; white-space: pre-wrap;
  overflow-wrap: anywhere; line-height: calc(1.65em + var(--n) * 5px); }
mark { background: none; color: inherit; padding-bottom: calc(var(--n) * 5px - 2px);
  box-decoration-break: clone; -webkit-box-decoration-break: clone; }
b { font: 600 10px/1 system-ui, sans-serif; letter-spacing: .03em; color: var(--c);
  margin: 0 .1em 0 .5em; vertical-align: .12em; white-space: nowrap;
  unicode-bidi: isolate; }
b::after { content: "\\2060" attr(data-label); }  /* the word joiner keeps a name at its entity */
"""


def render_page(items: Iterable, title: str | None = None) -> str:
    """Shows several texts with their entities as one self-contained HTML page.

    Each entity is underlined on a track of its own, inner ones next to the text, and named at its
    end; so crossing entities need no special case. Names are drawn by the style sheet: what is
    copied from the page is the text alone. A legend counts the entities of each label. Where
    entities have a score, a tooltip shows their `probability`.

    Args:
        items: Pairs `(text, entities)`, entities as in `render`.
        title: Heading of the page. Defaults to `None`, no heading.

    Returns:
        The page. It needs neither scripts nor other files, and follows the reader's choice of a
        light or dark theme.

    Raises:
        ValueError: If an entity is empty or not within its text.

    Example:

    >>> page = render_page([("Ana left.", [(0, 3, "person")]), ("Nobody.", [])], "Two texts")
    >>> '<h1>Two texts</h1>' in page
    True
    """
    items = [(text, list(entities)) for text, entities in items]
    items = [(text, read_spans(text, each), _probabilities(each)) for text, each in items]
    counts = Counter(label for _, spans, _ in items for _, _, label in spans)
    tints = {label: f"var(--c{order})" for order, label in enumerate(sorted(counts))}
    colours = "".join(
        # The golden angle keeps the hues of any number of labels apart.
        f" --c{order}: hsl({(212 + 137.5 * order) % 360:.0f} 62% var(--tone));"
        for order in range(len(counts))
    )
    legend = "".join(
        f'<li style="--c: {tints[label]}">{_safe(label)}<small>{counts[label]}</small></li>'
        for label in sorted(counts)
    )
    heading = _safe(title or "Entities")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{heading}</title>\n<style>{_STYLE}:root {{{colours} }}\n</style>\n"
        "</head>\n<body>\n"
        + (f"<h1>{heading}</h1>\n" if title else "")
        + (f"<ul>{legend}</ul>\n" if legend else "")
        + "\n".join(_article(*item, tints) for item in items)
        + "\n</body>\n</html>\n"
    )


def _probabilities(entities: list) -> dict:
    """The probability of each `(start, end, label)` that has a score."""
    # Entities of other programs may have a score that is no logit.
    known = [e for e in entities if getattr(e, "score", None) and hasattr(e, "probability")]
    return {(*as_triple(entity)[:2], str(entity.label)): entity.probability for entity in known}


def _article(text: str, spans: list, probabilities: dict, tints: dict) -> str:
    """One text, cut at all borders; a piece draws the tracks of all entities that cover it."""
    levels = stack_levels([(start, end) for start, end, _ in spans])
    height = max(levels, default=-1) + 1
    pieces = []
    borders = {border for start, end, _ in spans for border in (start, end)}
    for first, last in pairwise(sorted(borders | {0, len(text)})):
        piece = _safe(text[first:last])
        inside = sorted(
            (level, label, start, end)
            for (start, end, label), level in zip(spans, levels, strict=True)
            if start <= first and last <= end
        )
        if inside:
            tracks = ", ".join(
                f"linear-gradient({tints[label]}, {tints[label]}) "
                f"0 calc(100% - {5 * (height - 1 - level)}px) / 100% 3px no-repeat"
                for level, label, _, _ in inside
            )
            names = "".join(
                f'<b style="--c: {tints[label]}" data-label="{_safe(label)}"></b>'
                for _, label, _, end in inside
                if end == last
            )
            hint = ", ".join(
                f"{_safe(label)} {probabilities[start, end, label]:.2f}"
                for _, label, start, end in inside
                if (start, end, label) in probabilities
            )
            title = f' title="{hint}"' if hint else ""
            piece = f'<mark{title} style="background: {tracks}">{piece}{names}</mark>'
        pieces.append(piece)
    return f'<article dir="auto" style="--n: {height}">{"".join(pieces)}</article>'


def _safe(text: str) -> str:
    """Escaped text, with a stand-in for characters that a page cannot hold."""
    return escape("".join("�" if _is_unfit(character) else character for character in text))


def _is_unfit(character: str) -> bool:
    return character not in "\n\r\t" and unicodedata.category(character) in ("Cc", "Cs")


def read_spans(text: str, entities: Iterable) -> list[tuple]:
    """Distinct `(start, end, label)` by start, outer ones first; ValueError if one does not fit."""
    spans = set()
    for entity in entities:
        start, end, label = as_triple(entity)
        if not 0 <= start < end <= len(text):
            raise ValueError(
                f"An entity must have 0 <= start < end <= {len(text)}, the length of its text. "
                f"Received: entity={entity!r}"
            )
        spans.add((start, end, str(label)))
    return sorted(spans, key=lambda span: (span[0], -span[1], span[2]))


def stack_levels(borders: list[tuple[int, int]]) -> list[int]:
    """A level for each `(start, end)`: overlapping ones differ, and an outer one is further out."""
    levels, placed = [0] * len(borders), []
    for one in sorted(range(len(borders)), key=lambda i: borders[i][1] - borders[i][0]):
        start, end = borders[one]
        below = [levels[i] for i in placed if borders[i][0] < end and start < borders[i][1]]
        levels[one] = max(below, default=-1) + 1
        placed.append(one)
    return levels
