"""Does an entity's mention stand at its offsets, and if not, how were they counted?"""

import itertools
import re
from typing import NamedTuple

import numpy as np

# Under which of these keys an entity may carry its mention.
MENTIONS = ("text", "mention", "entity", "value", "word")
UNITS = ("characters", "utf16", "bytes")
# The largest code points of one, two, ... units.
_WIDTHS = {"utf16": [0xFFFF], "bytes": [0x7F, 0x7FF, 0xFFFF]}
_BLANK = re.compile(r"\s")


class Counting(NamedTuple):
    """How offsets count: in which unit, from 0 or 1, to the end or to the last one inside."""

    unit: str = "characters"
    one_based: bool = False
    end_inclusive: bool = False

    def __str__(self):
        return ", ".join(
            f"{name}={value!r}"
            for name, value in self._asdict().items()
            if value != self._field_defaults[name]
        )

    def places(self, text, entities):
        """Start and end of each entity in characters, the end exclusive, `None` for no border."""
        back, on = int(self.one_based), int(self.end_inclusive)
        found = [(each["start"] - back, each["end"] - back + on) for each in entities]
        if self.unit == "characters" or not found:
            return found
        # Surrogates stay single, as in a JSON file that holds one.
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "uint32")
        widths = 1 + sum((codes > limit).astype("int64") for limit in _WIDTHS[self.unit])
        borders = np.append(0, np.cumsum(widths))
        offsets = np.array([[min(max(o, -1), borders[-1] + 1) for o in pair] for pair in found])
        indices = np.searchsorted(borders, offsets)
        hit = np.append(borders, -1)[indices] == offsets
        return [
            tuple(int(index) if is_border else None for index, is_border in zip(*row, strict=True))
            for row in zip(indices, hit, strict=True)
        ]


# The fewest deviations first. An emoji before the mention also looks like one-based offsets: the unit
# is asked before.
_COUNTINGS = sorted(
    map(Counting._make, itertools.product(UNITS, (False, True), (False, True))),
    key=lambda way: (sum(map(bool, (way.unit != UNITS[0], *way[1:]))), way[1:]),
)


def mention_of(entity):
    """The mention that an entity gives, and its key, or `None` twice."""
    for key in MENTIONS:
        if isinstance(entity.get(key), str) and entity[key]:
            return entity[key], key
    return None, None


def mismatch(record):
    """What is wrong with the first entity of a record that is not at its offsets, or `None`.

    Blanks of different kinds are equal: tools write a line end inside a mention as a blank.
    """
    text = record["text"]
    for entity in record.get("entities", ()):
        mention, key = mention_of(entity)
        start, end = entity["start"], entity["end"]
        if mention is not None and not _stands(text, mention, start, end):
            found = text[max(start, 0) : max(end, 0)]
            return (
                f"offsets do not give the mention. Expected: {key}={mention!r:.80} at [{start}, "
                f"{end}). Received: {found!r:.80}."
            )
    return None


def _stands(text, mention, start, end):
    if start is None or end is None or not 0 <= start <= end:
        return False
    return _BLANK.sub(" ", text[start:end]) == _BLANK.sub(" ", mention)


def likely_counting(records):
    """A sentence on the way of counting that would give all mentions, empty if there is none."""
    given = [
        (record["text"], [each for each in record.get("entities", ()) if mention_of(each)[0]])
        for record in records
    ]
    for way in _COUNTINGS:
        if all(
            _stands(text, mention_of(each)[0], *place)
            for text, entities in given
            for each, place in zip(entities, way.places(text, entities), strict=True)
        ):
            looks = [
                {"utf16": "UTF-16 units", "bytes": "bytes of UTF-8"}.get(way.unit),
                "one-based offsets" if way.one_based else None,
                "inclusive ends" if way.end_inclusive else None,
            ]
            return (
                f" These look like {' and '.join(filter(None, looks))}: pass {way} to "
                "read_records, or use convert_offsets."
            )
    return ""
