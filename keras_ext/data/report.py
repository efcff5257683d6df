"""What validation found in a data set: counts, examples, and a table of both."""

import dataclasses

LOSSES = {
    "out_of_range": "span outside the text, empty or blank",
    "unknown_label": "label not among the given ones",
    "duplicate": "same span and label again",
    "off_token_border": "begins or ends inside a token",
    "cut_by_window": "whole in no single window",
}
NOTES = {
    "trimmed": "begins or ends with a blank (left out)",
    "crossing": "pairs that overlap in part (kept)",
    "nested": "inside another entity (kept)",
    "empty_text": "records without any token",
}


@dataclasses.dataclass
class Report:
    """Account of a data set. Each entity is usable or lost for exactly one reason.

    Attributes:
        records: Number of records.
        entities: Number of entities: `usable` plus `lost`.
        usable: Number of entities that training can learn from.
        tokens: Number of tokens, special ones not counted.
        unknown_tokens: How many of these are the unknown token.
        windows: Number of windows.
        per_label: Dictionary label -> number of usable entities, also for labels without any.
        counts: Dictionary from the names in `LOSSES` and `NOTES` to numbers.
        examples: Dictionary from the same names to a few dictionaries with `record` (index), `id`,
            `entity` and `text`, the surroundings.

    Example:

    >>> report = Report()
    >>> report.add("duplicate", record=0, entity={"start": 0, "end": 3, "label": "x"}, text="Ada")
    >>> report.lost
    1
    """

    records: int = 0
    entities: int = 0
    usable: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    windows: int = 0
    per_label: dict = dataclasses.field(default_factory=dict)
    counts: dict = dataclasses.field(default_factory=lambda: dict.fromkeys([*LOSSES, *NOTES], 0))
    examples: dict = dataclasses.field(default_factory=lambda: {k: [] for k in [*LOSSES, *NOTES]})

    def add(self, name, limit=5, **example):
        """Count one case and keep it as an example while there are fewer than `limit`.

        Args:
            name: A name in `LOSSES` or `NOTES`.
            limit: Largest number of examples kept of this name. Defaults to 5.
            **example: What to keep.
        """
        self.counts[name] += 1
        if len(self.examples[name]) < limit:
            self.examples[name].append(example)

    @property
    def lost(self):
        """Number of entities that training leaves out: not learnable, or given twice."""
        return sum(self.counts[name] for name in LOSSES)

    def raise_if_lost(self):
        """Raise if any entity is lost or given twice.

        Raises:
            ValueError: Names the reasons, with counts and examples.
        """
        if self.lost:
            lines = [line for name in LOSSES for line in self._lines(name, LOSSES[name])]
            raise ValueError(
                f"{self.lost} of {self.entities} entities are lost or given twice. Expected "
                "none. Received:\n" + "\n".join(lines)
            )

    def to_dict(self):
        """The report as a dictionary of plain values, `lost` included."""
        return {**dataclasses.asdict(self), "lost": self.lost}

    def __str__(self):
        totals = ("records", "windows", "tokens", "unknown_tokens", "entities", "usable", "lost")
        lines = [f"{name.replace('_', ' '):<18}{getattr(self, name):>9,}" for name in totals]
        for name, meaning in {**LOSSES, **NOTES}.items():
            lines += self._lines(name, meaning)
        lines.append("usable entities of each label")
        for label, count in self.per_label.items():
            warning = "" if count else "   no example: this label cannot be learnt"
            lines.append(f"  {label:<16}{count:>9,}{warning}")
        return "\n".join(lines)

    def _lines(self, name, meaning):
        """One line for the count and one for each example, none if there is nothing to say."""
        if not self.counts[name]:
            return []
        lines = [f"{name.replace('_', ' '):<18}{self.counts[name]:>9,}   {meaning}"]
        if name == "nested":  # common and harmless: the number says enough
            return lines
        for example in self.examples[name]:
            place = f"record {example['record']}"
            if example.get("id") is not None:
                place += f" (id={example['id']!r})"
            entity = example.get("entity")
            span = f" {entity['label']!r} [{entity['start']}, {entity['end']})" if entity else ""
            lines.append(f"    {place}:{span} {example['text']!r}")
        return lines
