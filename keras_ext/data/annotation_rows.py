"""Rows of JSON as annotation tools write them -> records.

Known are our own form, doccano, Prodigy, Label Studio (full and minimal), spaCy, CLUENER and CMeEE.
A row is told by its keys. What looks like annotations and is not known is an error.
"""

import re
from numbers import Integral

from keras_ext.data.conll_lines import is_tag
from keras_ext.data.mentions import MENTIONS

# Where annotations stand, and what the parts of one are called; ends are exclusive.
_LISTS = ("entities", "spans", "ents", "label", "labels", "annotations")
_START = ("start", "start_offset", "begin")
_END = ("end", "end_offset")
_LABEL = ("label", "labels", "type", "entity_group")
# Of these keys of the same tools nothing is an entity.
_OTHER = ("text", "data", "tokens", "sents", "cats", "meta", "relations", "predictions")
# Unknown keys of which the name says that there are annotations.
_NAME = re.compile(r"(^|.*_)(ner|bio|iob|tags?|labels?|(entit|annotat|span|mention|triple|spo).*)")


def to_record(row, left_out):
    """One row as a record.

    Args:
        row: What JSON held.
        left_out: `collections.Counter`, to which is added what is known and is not read.

    Returns:
        A tuple: the record, `None` if it was rejected; and whether it had our own form already. Of
        another form, entities have nothing but `start`, `end`, `label` and the mention as `text`.

    Raises:
        ValueError: If the row is not understood; the message names the key.
    """
    if isinstance(row, list) and len(row) == 2 and isinstance(row[1], dict):  # spaCy
        row = {**row[1], "text": row[0]}
    if not isinstance(row, dict):
        raise ValueError(f"a record must be a dict. Received: {row!r:.80}")
    if isinstance(row.get("data"), dict):
        return _label_studio(row, left_out), False
    if isinstance(row.get("data"), str) and "text" not in row:  # doccano, first version
        row = {"text" if key == "data" else key: value for key, value in row.items()}
    if row.get("answer") in ("reject", "ignore"):  # Prodigy
        left_out["records that were rejected or ignored"] += 1
        return None, False
    left_out["relations"] += len(row.get("relations") or ())
    key = _key(row)
    if key is None:
        # What Prodigy asks as a choice, of the whole text, says nothing of entities.
        empty = row.get("answer") == "accept" and "options" not in row
        entities = [] if empty else None
    elif isinstance(row[key], dict):
        entities = list(cluener_entities(row[key]))
    else:
        entities = [entity for item in row[key] for entity in _entities(item)]
    own = key == "entities" and all(map(_own, row[key]))
    if own or entities is None:
        return row, True
    return {**{k: v for k, v in row.items() if k != key}, "entities": entities}, False


def cluener_entities(mentions):
    """Entities of `{label: {mention: [[start, last], ...]}}`."""
    for label, places in mentions.items():
        for mention, spans in places.items():
            for start, last in spans:
                yield {"start": start, "end": last + 1, "label": label, "text": mention}


def cmeee_entity(item):
    """The entity of `start_idx`, `end_idx` (inclusive), `type` and perhaps `entity`."""
    entity = {"start": item["start_idx"], "end": item["end_idx"] + 1, "label": item["type"]}
    return {**entity, "text": item["entity"]} if "entity" in item else entity


def _key(row):
    """The key of the annotations, `None` if the row has none."""
    given = [key for key in _LISTS if key in row and (key == "entities" or row[key] is not None)]
    lists = [key for key in given if isinstance(row[key], (list, tuple))]
    _refuse_unknown_keys(row, given, lists)
    if isinstance(row.get("label"), dict):  # CLUENER
        lists.append("label")
    if given and not lists:
        raise ValueError(
            f'"{given[0]}" must be a list of entities. A class of the whole text, or tags of '
            f"tokens, are none. Received: {given[0]}={row[given[0]]!r:.80}"
        )
    full = [key for key in lists if row[key] and (len(lists) == 1 or _annotates(row[key]))]
    if len(full) > 1:
        raise ValueError(f"annotations under several keys. Expected one. Received: {full}")
    return (full or lists or [None])[0]


def _refuse_unknown_keys(row, given, lists):
    """Raises if annotations stand under a key where nothing looks for them, and would be lost."""
    others = [key for key in row if key not in _LISTS + _OTHER]
    if lists:  # spaCy's groups of spans stand beside its list of entities
        others = [k for k in given if k != "label" and isinstance(row[k], dict)] + others
    strange = [key for key in others if _annotates(row[key])]
    if not given and "text" in row:
        strange += [key for key in others if row[key] and _named(key, row[key])]
        strange += ["start"] if _is_entity(row) else []
    if strange:
        raise ValueError(
            f"annotations under an unknown key. Expected one of {list(_LISTS)}. Received: "
            f"{strange[0]}={row[strange[0]]!r:.80}"
        )


def _named(key, value):
    holds = isinstance(value, (list, dict)) or isinstance(value, str) and value[0] in "[{"
    return holds and _NAME.fullmatch(key.casefold()) is not None


def _is_entity(row):
    """Whether the row itself has the keys of one entity."""
    starts, ends = (any(_is_offset(row.get(key)) for key in keys) for keys in (_START, _END))
    return (
        starts and ends and any(isinstance(row.get(key), str) for key in (*_LABEL, *MENTIONS[1:]))
    )


def _annotates(value, listed=False):
    """Whether a value looks like annotations of a text, or holds some; `listed`: inside a list."""
    if isinstance(value, str):
        tags = value.split()
        return not listed and len(tags) > 1 and _are_tags(tags)
    if isinstance(value, dict):
        inner = list(value.values())
        places = inner and all(isinstance(x, (list, dict)) and _holds_places(x) for x in inner)
        words = ("start", "begin", "offset")
        if places or listed and any(word in key.lower() for key in value for word in words):
            return True
        return any(_annotates(part, listed) for part in inner if isinstance(part, (list, dict)))
    if not isinstance(value, list) or not value:
        return False
    if sum(map(_is_offset, value)) >= 2 and any(isinstance(part, str) for part in value):
        return True
    return _are_tags(value) or any(_annotates(part, listed=True) for part in value)


def _are_tags(values):
    return all(isinstance(tag, str) and is_tag(tag) for tag in values)


def _holds_places(value):
    """Whether this is [[0, 3], ...] or {mention: [[0, 3], ...]}."""
    parts = list(value.values()) if isinstance(value, dict) else [value]
    return any(
        isinstance(places, list)
        and places
        and all(isinstance(place, list) and all(map(_is_offset, place)) for place in places)
        for places in parts
    )


def _is_offset(value):
    return isinstance(value, Integral) and not isinstance(value, bool)


def _own(item):
    return isinstance(item, dict) and {"start", "end", "label"} <= item.keys()


def _entities(item):
    """The entities that one item of a list of annotations stands for: one for each label."""
    if isinstance(item, (list, tuple)) and len(item) == 3:
        start, end, label = item
        return [{"start": start, "end": end, "label": label}]
    if not isinstance(item, dict):
        raise ValueError(
            "an entity must be a dict with start, end and label, or a list of the three. "
            f"Received: {item!r:.80}"
        )
    if "start_idx" in item:
        try:
            return [cmeee_entity(item)]
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a CMeEE entity ({error!r}). Received: {item!r:.80}") from None
    parts = {
        name: next((item[key] for key in keys if item.get(key) is not None), None)
        for name, keys in (("start", _START), ("end", _END), ("label", _LABEL))
    }
    missing = [name for name, value in parts.items() if value is None]
    if missing:
        raise ValueError(
            f"an entity must be a dict with start, end and label. Received: no {missing[0]} in "
            f"{item!r:.80}"
        )
    labels = parts["label"] if isinstance(parts["label"], list) else [parts["label"]]
    mention = next((item[key] for key in MENTIONS if isinstance(item.get(key), str)), None)
    given = {} if mention is None else {"text": mention}
    return [{**parts, "label": label, **given} for label in labels]


def _label_studio(row, left_out):
    data = row["data"]
    texts = [value for value in data.values() if isinstance(value, str)]
    if not isinstance(data.get("text"), str) and len(texts) != 1:
        raise ValueError(
            f'a task needs its text, as data["text"]. Received: data with {sorted(data)}'
        )
    record = {"id": row["id"]} if "id" in row else {}
    record["text"] = data["text"] if isinstance(data.get("text"), str) else texts[0]
    done = row.get("annotations", row.get("completions"))
    if not isinstance(done, list) or not all(isinstance(one, dict) for one in done):
        raise ValueError(f'"annotations" of a task must be a list. Received: {done!r:.80}')
    done = [one for one in done if not one.get("was_cancelled")]
    if not done:
        left_out["predictions of a model"] += len(row.get("predictions") or ())
        return record
    left_out["second annotations of one text"] += len(done) - 1
    record["entities"] = []
    for result in done[0].get("result") or ():
        value = result.get("value") if isinstance(result, dict) else None
        labels = [] if value is None else value.get("labels") or value.get("hypertextlabels")
        if not labels:
            left_out["results that label no span"] += 1
        else:
            record["entities"] += _entities({**value, "label": None, "labels": labels})
    return record
