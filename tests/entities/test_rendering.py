import re
import unicodedata
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_ext.entities.entity import Entity
from keras_ext.entities.page import read_spans, render_page, stack_levels
from keras_ext.entities.rendering import render

VOID = {"meta"}


def plain(text, entities, width=100):
    return render(text, entities, color=False, width=width).split("\n")


def cells(line):
    """Width of a line without control characters, as terminals count it."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in line)
    return len(line) + wide - sum(unicodedata.category(c) in ("Mn", "Me") for c in line)


class Page(HTMLParser):
    """Checks that tags nest; keeps the text of each article, and what the tags say."""

    def __init__(self, page):
        super().__init__()
        self.open, self.articles, self.names, self.tags = [], [], [], set()
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "article":
            self.articles.append("")
        self.names += [value for name, value in attributes if name == "data-label"]
        assert all(name not in ("src", "href", "onload") for name, _ in attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "article" in self.open:
            self.articles[-1] += data


@st.composite
def texts_with_entities(draw):
    text = draw(st.text(min_size=1, max_size=40))
    entities = []
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(text) - 1))
        end = draw(st.integers(start + 1, len(text)))
        entities.append((start, end, draw(st.sampled_from(["person", "地点", "e\u0301", "<b>&"]))))
    return text, entities


def test_brackets_stand_below_their_words():
    text = "University of Lisbon Press"
    lines = plain(text, [(0, 20, "organisation"), (14, 20, "place")])
    assert lines[0] == text
    assert lines[1] == " " * 14 + "└plac┘"
    assert lines[2] == "└── organisation ──┘"
    assert lines[3] == "■ organisation 1  ■ place 1"


@pytest.mark.parametrize("before", ["", "東京", "🎉", "e\u0301a\u0308", "\t", "\u200b", "Å", "가"])
def test_columns_hold_behind_wide_combining_and_invisible_characters(before):
    text = before + "Oslo!"
    line, bracket, _ = plain(text, [(len(before), len(before) + 4, "ab")])
    left = cells(line.split("Oslo")[0])
    assert bracket == " " * left + "└ab┘"


def test_stand_ins_take_one_cell():
    assert plain("a\tb\x1bc\u200dd\x7fe\r\nf", [(0, 1, "x")])[0] == "a⇥b␛c·d�e␍↵"


def test_combining_accent_alone_is_shown_under_its_letter():
    assert plain("xe\u0301y", [(2, 3, "accent")])[1] == " ╵"
    assert plain("\u0301y", [(0, 1, "accent")])[:2] == ["◌\u0301y", "╵"]


def test_no_entity_leaves_the_text():
    assert render("Nobody is here.", [], width=40) == "Nobody is here."
    assert render("", []) == ""


def test_crossing_entities_get_lines_of_their_own():
    lines = plain("abcdefghij", [(0, 6, "ab"), (4, 10, "cd")])
    assert lines[1:3] == ["└ ab ┘", "    └ cd ┘"]


def test_touching_entities_share_a_line():
    assert plain("abcdefgh", [(0, 4, "x"), (4, 8, "y")])[1] == "└x─┘└y─┘"


def test_equal_borders_are_both_shown():
    assert plain("Chelsea", [(0, 7, "place"), (0, 7, "club")])[1:3] == ["└club─┘", "└place┘"]


def test_a_bracket_goes_on_in_the_next_line():
    lines = plain("one two three four", [(4, 18, "numbers")], width=10)
    assert lines[:4] == ["one two ", "    └nu─", "three four", "─numbers─┘"]


def test_lines_break_after_line_feeds_and_between_wide_characters():
    assert plain("ab\n\ncd", [])[:3] == ["ab↵", "↵", "cd"]
    assert plain("abcdefg\nabcdefg", [], width=8) == ["abcdefg↵", "abcdefg"]
    assert plain("a\n\u0301b", []) == ["a↵", "◌\u0301b"]
    assert [cells(line) for line in plain("東" * 9, [], width=9)] == [8, 8, 2]


def test_colour_changes_nothing_but_colour():
    text, spans = "Ana left Oslo.", [(0, 3, "person"), (9, 13, "place")]
    painted = render(text, spans, width=40, title="Ana")
    assert "\x1b[31m" in painted and "\x1b[32m" in painted
    bare = render(text, spans, color=False, width=40, title="Ana")
    assert re.sub(r"\x1b\[\d+m", "", painted) == bare


def test_text_cannot_send_codes_to_the_terminal():
    assert "\x1b" not in render("\x1b[31mred", [(0, 8, "\x1b[0m")], color=False, title="\x1b")


def test_all_kinds_of_entities_and_repeats_look_the_same():
    kinds = [(0, 3, "person"), {"start": 0, "end": 3, "label": "person"}, Entity(0, 3, "person")]
    assert len({render("Ana left.", [kind]) for kind in kinds}) == 1
    assert render("Ana left.", kinds) == render("Ana left.", kinds[:1])


@pytest.mark.parametrize("format", ["terminal", "html"])
@pytest.mark.parametrize("span", [(0, 0), (2, 1), (-1, 2), (0, 4), (3, 4)])
def test_entities_beyond_the_text_are_refused(format, span):
    entity = (*span, "a")
    with pytest.raises(ValueError, match=re.escape(f"Received: entity={entity}")):
        render("abc", [entity], format=format)


def test_unknown_format_and_narrow_lines_are_refused():
    with pytest.raises(ValueError, match="Received: format='png'"):
        render("abc", [], format="png")
    with pytest.raises(ValueError, match="Received: width=3"):
        render("abc", [], width=3)


def test_markup_in_text_label_and_title_is_escaped():
    evil = "<script>alert(1)</script> & \"x\" 'y'"
    page = render(evil, [(0, 8, "<i a='\">")], format="html", title=evil)
    assert "<script" not in page and "<i" not in page
    parsed = Page(page)
    assert parsed.articles == [evil]
    assert parsed.names == ["<i a='\">"]


def test_page_holds_every_text_and_counts_labels():
    items = [("Ana left.", [(0, 3, "person")]), ("", []), ("a\n b\tc", [(0, 1, "person")])]
    page = render_page(items, "Three")
    parsed = Page(page)
    assert parsed.articles == ["Ana left.", "", "a\n b\tc"]
    assert "person<small>2</small>" in page and "<h1>Three</h1>" in page
    assert not parsed.tags & {"script", "link", "img", "iframe"}
    assert "http" not in page and "url(" not in page


def test_characters_that_pages_cannot_hold_get_a_stand_in():
    page = render("a\x00\ud800\x1bb", [(0, 2, "x")], format="html")
    page.encode("utf-8")
    assert Page(page).articles == ["a���b"]


def test_tracks_of_a_page_are_as_many_as_entities_cover_a_piece():
    page = render("abcdef", [(0, 4, "x"), (2, 6, "y")], format="html")
    pieces = re.findall(r'<mark style="(.*?)">(.*?)<', page)
    assert [(style.count("gradient"), text) for style, text in pieces] == [
        (1, "ab"),
        (2, "cd"),
        (1, "ef"),
    ]


def test_a_tooltip_has_the_probabilities_of_what_covers_a_piece():
    entities = [Entity(0, 4, "<x>", score=2.0), Entity(2, 4, "y", score=-1.0), (0, 1, "z")]
    page = render("abcd", entities, format="html")
    titles = re.findall(r"<mark(.*?) style", page)
    assert titles == [' title="&lt;x&gt; 0.88"'] * 2 + [' title="y 0.27, &lt;x&gt; 0.88"']
    assert "title=" not in render("abcd", [Entity(0, 4, "x")], format="html").split("<article")[1]
    other = SimpleNamespace(start=0, end=4, label="x", score=0.9)  # of another program
    assert "title=" not in render("abcd", [other], format="html").split("<article")[1]


@settings(max_examples=150, deadline=None)
@given(texts_with_entities(), st.integers(8, 40))
def test_any_text_keeps_its_width_and_its_page(case, width):
    text, entities = case
    lines = plain(text, entities, width)
    if entities:
        brackets = [line for line in lines[:-1] if re.match(r" *[└─╵]", line)]
        assert brackets
    assert all(cells(line) <= width for line in lines[: -1 if entities else None])
    parsed = Page(render(text, entities, format="html"))
    fit = [c if c in "\n\r\t" or unicodedata.category(c) not in ("Cc", "Cs") else "�" for c in text]
    assert parsed.articles == ["".join(fit)]
    assert len(parsed.names) == len(set(entities))


@given(texts_with_entities())
def test_levels_keep_overlapping_spans_apart_and_containers_outside(case):
    spans = [span[:2] for span in read_spans(*case)]
    levels = stack_levels(spans)
    for (start, end), level in zip(spans, levels, strict=True):
        for (other_start, other_end), other_level in zip(spans, levels, strict=True):
            if start < other_end and other_start < end and (start, end) != (other_start, other_end):
                assert level != other_level
                if start <= other_start and other_end <= end:
                    assert level > other_level
    assert sorted(set(levels)) == list(range(len(set(levels))))
