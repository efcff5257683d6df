import math
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
    >>> round(entity.probability, 3)
    0.971
    """

    start: int
    end: int
    label: str
    text: str = ""
    score: float = 0.0

    @property
    def probability(self) -> float:
        """The score on a scale from 0 to 1, 1 / (1 + exp(-score)).

        It is what the loss makes of one span alone: half where the score is 0. It orders entities
        as the score does. Nobody has calibrated it, and probabilities of spans that exclude each
        other need not add up to at most 1; `docs/entities.md` has measured it.
        """
        return 0.5 + 0.5 * math.tanh(self.score / 2)  # which never overflows

    def to_dict(self) -> dict:
        """The fields as a new dict of plain values, ready for JSON."""
        return asdict(self)
