"""Records, the one form every reader produces: a text and its entities in character offsets."""

from numbers import Integral

from keras_ext.data.mentions import likely_counting, mismatch


def check_records(records, source="records", labelled=True, mentions=True):
    """Check the structure of records and return them as a list of new dictionaries.

    A record is `{"text": str, "entities": [{"start": int, "end": int, "label": str}, ...]}`.
    Offsets count code points, `end` is exclusive. Further keys, such as `"id"`, are kept. Whether
    a span lies inside its text is not judged here: `validate` counts those. An entity that carries
    its mention, as `"text"`, `"mention"`, `"entity"`, `"value"` or `"word"`, must have it there.

    Args:
        records: Iterable of records. It is not changed.
        source: Where the records come from, for error messages. Defaults to `"records"`.
        labelled: Whether every record must have `"entities"`. With `False` they may be absent.
            Defaults to `True`.
        mentions: Whether mentions are compared. Defaults to `True`.

    Returns:
        List of dictionaries, offsets as Python integers.

    Raises:
        ValueError: If there is no record, or one is malformed; the message names the record.

    Example:

    >>> check_records([{"text": "Ada", "entities": [{"start": 0, "end": 3, "label": "person"}]}])
    [{'text': 'Ada', 'entities': [{'start': 0, 'end': 3, 'label': 'person'}]}]
    """
    checked = []
    for index, record in enumerate(records):
        try:
            checked.append(_check_record(record, labelled))
        except ValueError as error:
            raise ValueError(f"{record_name(record, index, source)}: {error}") from None
    for index, record in enumerate(checked if mentions else ()):
        fault = mismatch(record)
        if fault:
            likely = likely_counting(checked) or likely_counting([record])
            raise ValueError(f"{record_name(record, index, source)}: {fault}{likely}")
    if not checked:
        raise ValueError(f"{source}: no records. Expected at least one. Received: records=[]")
    return checked


def trim_entity(text, entity):
    """An entity without the blanks at its edges, which no token covers.

    Args:
        text: The text.
        entity: Dictionary with `start` and `end`, inside the text.

    Returns:
        The same dictionary if there are none, else a new one; of blanks alone an empty span is left.

    Example:

    >>> trim_entity("in Rome ", {"start": 2, "end": 8, "label": "place"})
    {'start': 3, 'end': 7, 'label': 'place'}
    """
    surface = text[entity["start"] : entity["end"]]
    trimmed = surface.strip()
    if len(trimmed) == len(surface):
        return entity
    start = entity["start"] + len(surface) - len(surface.lstrip())
    return {**entity, "start": start, "end": start + len(trimmed)}


def trimmed_entities(record):
    """The entities of a record as `trim_entity` leaves them; those outside the text as they are."""
    return [
        trim_entity(record["text"], entity)
        if 0 <= entity["start"] < entity["end"] <= len(record["text"])
        else entity
        for entity in record["entities"]
    ]


def labels_of(records):
    """Sorted names of all labels that occur in records.

    Args:
        records: Iterable of records; those without entities add nothing.

    Returns:
        Sorted list of strings.

    Example:

    >>> labels_of([{"text": "Ada", "entities": [{"start": 0, "end": 3, "label": "person"}]}])
    ['person']
    """
    return sorted({entity["label"] for record in records for entity in record.get("entities", ())})


def record_name(record, index, source="records"):
    """Name of a record in a message, such as `dev.jsonl, record 3 (id='a7')`.

    Args:
        record: The record, well-formed or not.
        index: Its place in the source, from 0.
        source: Where it comes from. Defaults to `"records"`.

    Returns:
        A string.

    Example:

    >>> record_name({"text": "", "id": 7}, 3)
    'records, record 3 (id=7)'
    """
    name = f"{source}, record {index}"
    if isinstance(record, dict) and "id" in record:
        name += f" (id={record['id']!r})"
    return name


def _check_record(record, labelled):
    if not isinstance(record, dict):
        raise ValueError(f"a record must be a dict. Received: {_shown(record)}")
    if not isinstance(record.get("text"), str):
        raise ValueError(f'"text" must be a str. Received: text={_shown(record.get("text"))}')
    if "entities" not in record and not labelled:
        return dict(record)
    entities = record.get("entities")
    if not isinstance(entities, (list, tuple)):
        raise ValueError(f'"entities" must be a list. Received: entities={_shown(entities)}')
    return {**record, "entities": [_check_entity(entity) for entity in entities]}


def _check_entity(entity):
    if not isinstance(entity, dict):
        raise ValueError(f"an entity must be a dict. Received: {_shown(entity)}")
    for key in ("start", "end"):
        value = entity.get(key)
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise ValueError(f'"{key}" of an entity must be an int. Received: entity={entity}')
    if not isinstance(entity.get("label"), str):
        raise ValueError(f'"label" of an entity must be a str. Received: entity={entity}')
    return {**entity, "start": int(entity["start"]), "end": int(entity["end"])}


def _shown(value):
    return f"{value!r:.80} (type {type(value).__name__})"
