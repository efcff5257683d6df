"""More training records from the ones there are."""

import bisect
import collections
import random

from keras_ext.data.records import check_records


def swap_mentions(records, rate=0.5, seed=0):
    """Puts other mentions of the same label in place of entities.

    A model trained from scratch learns the names of its training file by heart. With each name in
    the contexts of others, and each context with other names, it has to learn what surrounds an
    entity. Mentions are drawn as often as they occur. Entities that overlap another one stay where
    they are and are put nowhere else.

    Args:
        records: List of records with entities.
        rate: Probability of a swap for each entity that overlaps no other. Defaults to 0.5.
        seed: Integer that fixes the draws. Defaults to 0.

    Returns:
        New records, one for each given one, with the same labels in the same order and offsets
        that fit the new texts. Entities outside their text are left out. Use them together with
        the original ones.

    Raises:
        ValueError: If a record is malformed or `rate` is not in [0, 1].

    Example:

    >>> records = [
    ...     {"text": "Ada left.", "entities": [{"start": 0, "end": 3, "label": "person"}]},
    ...     {"text": "I saw Bo.", "entities": [{"start": 6, "end": 8, "label": "person"}]},
    ... ]
    >>> [record["text"] for record in swap_mentions(records, rate=1.0, seed=5)]
    ['Bo left.', 'I saw Ada.']
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is a probability. Received: rate={rate}")
    records = check_records(records)
    draws = random.Random(seed)
    mentions = collections.defaultdict(list)
    for record in records:
        for entity in _alone(_inside(record)):
            mention = record["text"][entity["start"] : entity["end"]]
            mentions[entity["label"]].append(mention)
    return [_swapped(record, mentions, rate, draws) for record in records]


def _inside(record):
    size = len(record["text"])
    return [e for e in record["entities"] if 0 <= e["start"] < e["end"] <= size]


def _alone(entities):
    """Those that overlap no other: a swap takes no inner entity away and brings none unmarked."""
    return [
        entity
        for entity in entities
        if all(
            other is entity or other["end"] <= entity["start"] or entity["end"] <= other["start"]
            for other in entities
        )
    ]


def _swapped(record, mentions, rate, draws):
    entities = _inside(record)
    swaps = []  # start, end, mention
    for entity in sorted(_alone(entities), key=lambda e: e["start"]):
        if draws.random() < rate:
            swaps.append((entity["start"], entity["end"], draws.choice(mentions[entity["label"]])))
    text, place, starts, shifts = "", 0, [], [0]
    for start, end, mention in swaps:
        text += record["text"][place:start] + mention
        place = end
        starts.append(end)
        shifts.append(len(text) - end)
    text += record["text"][place:]

    def moved(position):  # a position after the end of a swapped mention moves with the text
        return position + shifts[bisect.bisect_right(starts, position)]

    new = [{**e, "start": moved(e["start"]), "end": moved(e["end"])} for e in entities]
    return {**record, "text": text, "entities": new}
