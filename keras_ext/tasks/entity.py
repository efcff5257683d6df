from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Entity:
    """A labelled piece of a text, with the surface it covers and the score it got.

    `text == document[start:end]` holds for every entity that a recogniser returns.

    Args:
        start: Index of the first character in the document, in code points.
        end: Index after the last character (end exclusive), in code points.
        label: The entity's type.
        text: The surface, `document[start:end]`. Defaults to `""`.
        score: The model's logit for this span and label, not a probability: spans above the
            threshold (0 unless set otherwise) are predicted. Defaults to `0.0`.

    Example:

    >>> entity = Entity(8, 14, "place", text="Norway", score=3.5)
    >>> "Bank of Norway"[entity.start:entity.end]
    'Norway'
    >>> entity.to_dict()
    {'start': 8, 'end': 14, 'label': 'place', 'text': 'Norway', 'score': 3.5}
    """

    start: int
    end: int
    label: str
    text: str = ""
    score: float = 0.0

    def to_dict(self) -> dict:
        """The fields as a new dict of plain values, ready for JSON."""
        return asdict(self)
