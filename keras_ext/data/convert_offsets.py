"""Records whose offsets count otherwise -> records of this package."""

from keras_ext.data.mentions import UNITS, Counting
from keras_ext.data.records import check_records, record_name


def convert_offsets(
    records, unit="characters", one_based=False, end_inclusive=False, source="records"
):
    """Turn offsets that are counted in another way into those of this package.

    Here offsets count characters (code points) from 0 and the end is exclusive, so that a mention
    is `text[start:end]`. JavaScript, Java and .NET count UTF-16 units, of which an emoji has two.

    Args:
        records: Iterable of records (see `check_records`); those without entities stay as they are.
        unit: What the offsets count: `"characters"`, `"utf16"` units or `"bytes"` of UTF-8.
            Defaults to `"characters"`.
        one_based: Whether the first one is 1. Defaults to `False`.
        end_inclusive: Whether the end is the last one inside the entity. Defaults to `False`.
        source: Where the records come from, for error messages. Defaults to `"records"`.

    Returns:
        List of new records.

    Raises:
        ValueError: If an offset lies inside a character or before the first one, or, in other units
            than characters, behind the text, or an entity names its mention, as `"text"`, and the
            new offsets give another.

    Example:

    >>> entity = {"start": 3, "end": 6, "label": "place", "text": "Rome"}
    >>> convert_offsets([{"text": "In Rome", "entities": [entity]}], end_inclusive=True)
    [{'text': 'In Rome', 'entities': [{'start': 3, 'end': 7, 'label': 'place', 'text': 'Rome'}]}]
    """
    if unit not in UNITS:
        raise ValueError(f"unknown unit. Expected one of {list(UNITS)}. Received: unit={unit!r}")
    counting = Counting(unit, bool(one_based), bool(end_inclusive))
    records = check_records(records, source, labelled=False, mentions=False)
    for index, record in enumerate(records):
        entities = record.get("entities", ())
        places = counting.places(record["text"], entities)
        for entity, (start, end) in zip(entities, places, strict=True):
            if start is None or end is None or start < 0 <= entity["start"]:
                raise ValueError(
                    f"{record_name(record, index, source)}: an offset is no border of a character. "
                    f"Expected offsets in {unit}{' from 1' if one_based else ''}. Received: "
                    f"entity={entity}"
                )
            entity.update(start=start, end=end)
    return check_records(records, source, labelled=False)
