"""Records -> windows and token spans, with an account of every entity."""

import bisect

import numpy as np

from keras_ext.data.records import check_records, trim_entity
from keras_ext.data.report import Report
from keras_ext.data.spans import make_windows, token_borders

_CONTEXT = 20  # characters shown on each side of an entity


def validate(records, tokenizer, labels, max_length, stride, examples=5):
    """Say what training on these records would lose, and why.

    Args:
        records: List of records with entities.
        tokenizer: A `Tokenizer`.
        labels: List of label names.
        max_length: Largest number of tokens in a window, the two special ones included.
        stride: Number of tokens that consecutive windows share.
        examples: Largest number of examples kept of each finding. Defaults to 5.

    Returns:
        A `Report`.

    Raises:
        ValueError: If a record is malformed or an argument out of range.

    Example:

    >>> from keras_ext.data.tokenizer import Tokenizer
    >>> records = [{"text": "Ada", "entities": [{"start": 0, "end": 9, "label": "person"}]}]
    >>> tokenizer = Tokenizer.from_characters(["Ada"], min_count=1)
    >>> validate(records, tokenizer, ["person"], max_length=16, stride=4).counts["out_of_range"]
    1
    """
    return plan(records, tokenizer, labels, max_length, stride, examples)[2]


def plan(records, tokenizer, labels, max_length, stride, examples=5):
    """Tokenise records once: windows, the spans to learn in each, and the report on both.

    Args:
        records: List of records with entities.
        tokenizer: A `Tokenizer`.
        labels: List of label names; the index of a name is its type.
        max_length: Largest number of tokens in a window, the two special ones included.
        stride: Number of tokens that consecutive windows share.
        examples: Largest number of examples kept of each finding. Defaults to 5.

    Returns:
        Windows (list of `Window`), for each window an int32 array (m, 3) of `type, start, end` in
        its tokens, `end` inclusive, and the `Report`.

    Raises:
        ValueError: If a record is malformed or an argument out of range.

    Example:

    >>> from keras_ext.data import Tokenizer
    >>> record = {"text": "In Rome", "entities": [{"start": 3, "end": 7, "label": "place"}]}
    >>> tokenizer = Tokenizer.from_characters(["In Rome"], min_count=1)
    >>> windows, spans, report = plan([record], tokenizer, ["place"], max_length=16, stride=4)
    >>> spans[0].tolist()  # the start token is 0, the space has no token
    [[0, 3, 6]]
    """
    records = check_records(records)
    labels = list(labels)
    if len(set(labels)) < len(labels) or not labels:
        raise ValueError(f"labels must be given, each once. Received: labels={labels}")
    label_ids = {label: index for index, label in enumerate(labels)}
    report = Report(records=len(records), per_label=dict.fromkeys(labels, 0))
    windows, spans = [], []
    encodings = tokenizer.encode_batch([record["text"] for record in records])
    for document, (record, encoding) in enumerate(zip(records, encodings, strict=True)):
        note = _note(report, record, document, examples)
        views = make_windows(
            encoding, document, max_length, stride, tokenizer.start_id, tokenizer.end_id
        )
        if not views:
            note("empty_text")
        report.tokens += len(encoding.ids)
        report.unknown_tokens += int(np.sum(encoding.ids == tokenizer.unknown_id))
        sound = _sound(record, label_ids, note)
        _overlaps(sound, note)
        inside = _inside(sound, encoding, views, label_ids, note)
        report.usable += len(inside)
        for kind in inside[:, 0]:
            report.per_label[labels[kind]] += 1
        report.entities += len(record["entities"])
        for view in views:
            size = len(view.ids) - 2
            near = slice(*np.searchsorted(inside[:, 1], [view.first, view.first + size]))
            shift = view.first - 1  # the start token comes first
            local = inside[near] - np.array([0, shift, shift], "int32")
            windows.append(view)
            spans.append(local[local[:, 2] <= size])
    report.windows = len(windows)
    return windows, spans, report


def _note(report, record, document, limit):
    """Function that enters a finding about this record into the report."""

    def note(name, entity=None):
        start, end = (entity["start"], entity["end"]) if entity else (0, _CONTEXT)
        snippet = record["text"][max(start - _CONTEXT, 0) : max(end + _CONTEXT, 0)]
        where = {"record": document, "id": record.get("id")}
        report.add(name, limit, **where, entity=entity, text=snippet[: 8 * _CONTEXT])

    return note


def _sound(record, label_ids, note):
    """Entities that lie in the text, have a known label, and were not given before."""
    sound, seen = [], set()
    for given in record["entities"]:
        entity = trim_entity(record["text"], given) if given["start"] >= 0 else given
        key = (entity["start"], entity["end"], entity["label"])
        if not 0 <= given["start"] < given["end"] <= len(record["text"]) or key[0] == key[1]:
            note("out_of_range", given)
        elif entity["label"] not in label_ids:
            note("unknown_label", given)
        elif key in seen:
            note("duplicate", given)
        else:
            seen.add(key)
            sound.append(entity)
            if entity is not given:
                note("trimmed", given)
    return sound


def _inside(entities, encoding, views, label_ids, note):
    """Token spans, in order of their start, of entities on token borders and whole in a window."""
    starts, ends = token_borders(encoding.offsets)
    firsts = [view.first for view in views]
    inside = []
    for entity in entities:
        first, last = starts.get(entity["start"]), ends.get(entity["end"])
        if first is None or last is None or first > last:
            note("off_token_border", entity)
            continue
        # Of the windows that start early enough the last one reaches furthest.
        nearest = bisect.bisect_right(firsts, first) - 1
        if last >= views[nearest].first + len(views[nearest].ids) - 2:
            note("cut_by_window", entity)
        else:
            inside.append((label_ids[entity["label"]], first, last))
    inside.sort(key=lambda span: span[1])
    return np.array(inside, "int32").reshape(-1, 3)


def _overlaps(entities, note):
    """Note entities inside others, and pairs that overlap without one inside the other."""
    opened = []
    for entity in sorted(entities, key=lambda e: (e["start"], -e["end"])):
        opened = [other for other in opened if other["end"] > entity["start"]]
        if any(other["end"] >= entity["end"] for other in opened):
            note("nested", entity)
        for other in opened:
            if other["start"] < entity["start"] and other["end"] < entity["end"]:
                note("crossing", entity)
        opened.append(entity)
