"""Spans: of characters and of tokens, in windows of a long text and in all of it.

Spans are rows `type, start, end`. In tokens `end` is inclusive, in characters exclusive.
"""

import bisect
import collections
from typing import NamedTuple

import numpy as np

_POLICIES = ("nested", "flat", "longest")


class Window(NamedTuple):
    """A piece of a document, framed by the start and end tokens.

    `document` is the index of the document, `first` that of the window's first real token among
    the document's tokens. `ids` is int32 (n,), special tokens included; `offsets` int32 (n, 2)
    holds characters of the document, (-1, -1) at the special tokens.

    Example:

    >>> Window(0, 0, np.array([2, 7, 3]), np.array([[-1, -1], [0, 4], [-1, -1]])).first
    0
    """

    document: int
    first: int
    ids: np.ndarray
    offsets: np.ndarray


def make_windows(encoding, document, max_length, stride, start_id, end_id):
    """Cut an encoded document into windows that cover every token.

    A document that fits gives one window, one without tokens none. The last of several windows
    is shifted left to full length, so it overlaps more.

    Args:
        encoding: `Encoding` of the document, without special tokens.
        document: Index of the document, kept in each window.
        max_length: Largest number of tokens in a window, the two special ones included.
        stride: Number of tokens that consecutive windows share, as in Hugging Face tokenizers:
            0 <= stride < max_length - 2.
        start_id: Id put in front.
        end_id: Id put at the end.

    Returns:
        List of `Window`.

    Raises:
        ValueError: If `stride` or `max_length` is out of range.

    Example:

    >>> from keras_ext.data import Encoding
    >>> encoding = Encoding(np.arange(10, 15), np.stack([np.arange(5), np.arange(1, 6)], axis=1))
    >>> [w.ids.tolist() for w in make_windows(encoding, 0, 6, 2, start_id=1, end_id=2)]
    [[1, 10, 11, 12, 13, 2], [1, 11, 12, 13, 14, 2]]
    """
    size = max_length - 2
    if not 0 <= stride < size:
        raise ValueError(
            "windows must move forward. Expected 0 <= stride < max_length - 2. Received: "
            f"stride={stride}, max_length={max_length}"
        )
    count = len(encoding.ids)
    if not count:
        return []
    last = max(count - size, 0)
    special = np.full((1, 2), -1, "int32")
    windows = []
    for first in [*range(0, last, size - stride), last]:
        part = slice(first, first + size)
        ids = np.concatenate([[start_id], encoding.ids[part], [end_id]]).astype("int32")
        offsets = np.concatenate([special, encoding.offsets[part], special]).astype("int32")
        windows.append(Window(document, first, ids, offsets))
    return windows


def token_borders(offsets):
    """Where entities can start and end.

    Several tokens may share characters, as the bytes of an emoji do: an entity starts at the
    first of them and ends at the last. Tokens of zero width and special tokens are no borders.

    Args:
        offsets: Integer array (n, 2), start and end (exclusive) of each token in characters.

    Returns:
        Two dictionaries: character start -> token, character end -> token.

    Example:

    >>> token_borders(np.array([[-1, -1], [0, 3], [4, 8]]))
    ({0: 1, 4: 2}, {3: 1, 8: 2})
    """
    starts, ends = {}, {}
    for index, (start, end) in enumerate(np.asarray(offsets).tolist()):
        if end > start:
            starts.setdefault(start, index)
            ends[end] = index
    return starts, ends


def entities_to_tokens(entities, offsets, label_ids):
    """Token spans of the entities that lie on token borders.

    Others (off the borders, outside this window, of an unknown label) are left out; `validate`
    counts them. An entity given twice counts once.

    Args:
        entities: List of dictionaries with `start`, `end` (exclusive) and `label`.
        offsets: Integer array (n, 2), character offsets of the tokens of one window or text.
        label_ids: Dictionary label -> type.

    Returns:
        int32 array (m, 3) of `type, start, end`, `end` inclusive.

    Example:

    >>> offsets = np.array([[-1, -1], [0, 3], [4, 8], [-1, -1]])
    >>> entities_to_tokens([{"start": 0, "end": 8, "label": "place"}], offsets, {"place": 0})
    array([[0, 1, 2]], dtype=int32)
    """
    starts, ends = token_borders(offsets)
    spans = {}
    for entity in entities:
        first, last = starts.get(entity["start"]), ends.get(entity["end"])
        kind = label_ids.get(entity["label"])
        if kind is not None and first is not None and last is not None and first <= last:
            spans[kind, first, last] = None
    return np.array(list(spans), "int32").reshape(-1, 3)


def tokens_to_characters(spans, offsets):
    """Character spans of token spans, the inverse of `entities_to_tokens`.

    Args:
        spans: Integer array (m, 3) of `type, start, end` in tokens, `end` inclusive.
        offsets: Integer array (n, 2), character offsets of the tokens.

    Returns:
        int32 array (m, 3) of `type, start, end` in characters, `end` exclusive.

    Example:

    >>> tokens_to_characters(np.array([[0, 1, 2]]), np.array([[-1, -1], [0, 3], [4, 8], [-1, -1]]))
    array([[0, 0, 8]], dtype=int32)
    """
    spans = np.asarray(spans, "int32").reshape(-1, 3)
    offsets = np.asarray(offsets, "int32").reshape(-1, 2)
    kinds, first, last = spans.T
    return np.stack([kinds, offsets[first, 0], offsets[last, 1]], axis=1)


def merge_windows(windows, predictions, documents=None):
    """Spans predicted in windows -> entities of whole documents.

    A span belongs to the one window that sees most around it: the distance from the span to the
    window's nearer border is largest (the earlier window wins a tie). Only what this window
    predicts counts. So the result does not depend on how many windows saw a span, and a piece of
    an entity cut off at a border vanishes, since another window sees it whole.

    Args:
        windows: List of `Window`, all windows of each document.
        predictions: For each window a pair of spans, (m, 3) integers of `type, start, end` in
            tokens of the window, `end` inclusive, and scores, (m,) floats.
        documents: Number of documents. Defaults to `None`, one more than the largest index.

    Returns:
        For each document a dictionary `(type, start, end) -> score` in characters, `end`
        exclusive. Spans that do not begin and end where text does are left out: at a special
        token, or at one of zero width that stands apart.

    Raises:
        ValueError: If there is not one prediction a window, or a document is out of range.

    Example:

    >>> window = Window(0, 0, np.arange(4), np.array([[-1, -1], [0, 3], [4, 8], [-1, -1]]))
    >>> merge_windows([window], [([[2, 1, 2]], [0.5])])
    [{(2, 0, 8): 0.5}]
    """
    if len(windows) != len(predictions):
        raise ValueError(
            "expected one prediction a window. Received: "
            f"len(windows)={len(windows)}, len(predictions)={len(predictions)}"
        )
    count = max((window.document + 1 for window in windows), default=0)
    if documents is not None and documents < count:
        raise ValueError(
            f"a window is of document {count - 1}. Expected documents > {count - 1}. Received: "
            f"documents={documents}"
        )
    borders = window_borders(windows)
    merged = [{} for _ in range(count if documents is None else documents)]
    for window, (spans, scores) in zip(windows, predictions, strict=True):
        if not len(spans):
            continue
        indices, characters = owned_spans(window, spans, borders)
        entities = merged[window.document]
        for index, *key in zip(indices.tolist(), *characters.T.tolist(), strict=True):
            key, score = tuple(key), float(scores[index])
            entities[key] = max(score, entities.get(key, score))
    return merged


def window_borders(windows):
    """The first and last tokens of the windows of each document.

    Args:
        windows: List of `Window`, all windows of each document.

    Returns:
        Dictionary document -> integer array (2, w), ascending, in tokens of the document.
    """
    borders = collections.defaultdict(list)
    for window in windows:
        borders[window.document].append((window.first, window.first + len(window.ids) - 3))
    return {document: np.array(sorted(pairs)).T for document, pairs in borders.items()}


def owned_spans(window, spans, borders):
    """The spans of a window that count: it owns them (see `merge_windows`), and they are text.

    Args:
        window: A `Window`.
        spans: Integers (m, 3) of `type, start, end` in tokens of the window, `end` inclusive.
        borders: What `window_borders` gives for all windows.

    Returns:
        Which of the spans count, (k,) integers, and these spans in characters, int32 (k, 3) of
        `type, start, end`, `end` exclusive.
    """
    spans = np.asarray(spans, "int32").reshape(-1, 3)
    characters = tokens_to_characters(spans, window.offsets)
    text = window.offsets[window.offsets[:, 1] > window.offsets[:, 0]]
    first, last = (np.isin(window.offsets[:, side], text[:, side]) for side in (0, 1))
    real = first[spans[:, 1]] & last[spans[:, 2]] & (characters[:, 2] > characters[:, 1])
    owner = _owners(spans[:, 1:] + (window.first - 1), *borders[window.document])
    indices = np.flatnonzero(real & (owner == window.first))
    return indices, characters[indices]


def resolve(entities, policy="nested"):
    """Keep all entities, or drop the weaker of those that overlap.

    Args:
        entities: Dictionary `(type, start, end) -> score`, `end` exclusive, as `merge_windows`
            gives for a document.
        policy: `"nested"` keeps all. `"flat"` takes the highest score first and drops what
            overlaps it; equal scores: the longer, then the earlier, then the lower type.
            `"longest"` takes the longest first, then by score. Defaults to `"nested"`.

    Returns:
        A dictionary of the same form, by start, then longer first, then type.

    Raises:
        ValueError: If the policy is unknown.

    Example:

    >>> resolve({(0, 0, 8): 1.0, (1, 4, 8): 2.0}, policy="flat")
    {(1, 4, 8): 2.0}
    """
    if policy not in _POLICIES:
        raise ValueError(
            f"unknown policy. Expected one of {_POLICIES}. Received: policy={policy!r}"
        )
    kept = entities
    if policy != "nested":
        kept = _greedy(entities, policy)
    return {key: entities[key] for key in sorted(kept, key=lambda k: (k[1], -k[2], k[0]))}


def _owners(place, first, last):
    """First token of the window that owns each span.

    Spans (m, 2) are from one window, `first` and `last` (w,) the ascending borders of all windows,
    everything in tokens of the document.
    """
    # Only windows that overlap the spans can own one: a long document has thousands of others.
    near = (last >= place.min(initial=last[-1])) & (first <= place.max(initial=0))
    first, last = first[near], last[near]
    # Negative where a span sticks out. That no text follows a border of the document changes
    # nothing: another window that holds the same span always sees less on that side.
    context = np.minimum(place[:, :1] - first, last - place[:, 1:])
    return first[np.argmax(context, axis=1)]


def _greedy(entities, policy):
    def rank(key):
        kind, start, end = key
        score, length = -entities[key], start - end
        order = (score, length) if policy == "flat" else (length, score)
        return (*order, start, kind)

    kept, starts, ends = [], [], []  # kept entities do not overlap, so both lists are sorted
    for key in sorted(entities, key=rank):
        _, start, end = key
        place = bisect.bisect_left(starts, end)
        if place == 0 or ends[place - 1] <= start:
            starts.insert(place, start)
            ends.insert(place, end)
            kept.append(key)
    return kept
