"""What users pass to a task, as plain lists: texts, records, callbacks."""

from collections.abc import Mapping
from os import PathLike

import keras

from keras_ext.data import check_records


def as_texts(texts, name="texts"):
    """Texts in any form as a list of strings.

    Args:
        texts: a string or a dict with `"text"`; or many of them, in order: a list, a tuple, an
            array or a column of strings, a generator.
        name: what the argument is called, for messages.

    Returns:
        A list of str, and whether it was one text alone.

    Raises:
        ValueError: for anything else; the message names what was found, and where.
    """
    if isinstance(texts, (str, Mapping)):
        return [_text(texts, name)], True
    return [_text(text, f"{name}[{i}]") for i, text in enumerate(_many(texts, name, "text"))], False


def text_list(texts, name):
    """`as_texts` where one text alone would be a mistake."""
    texts, alone = as_texts(texts, name)
    if alone:
        raise ValueError(f"Expected a list of texts. Received: {name}={texts[0]!r:.80}")
    return texts


def as_records(records, name="records"):
    """Records in any form, one alone too, as `data.check_records` gives them.

    Args:
        records: a record, or many of them: a list, a tuple, a generator.
        name: what the argument is called, for messages.

    Raises:
        ValueError: for anything else, such as a path or a string; and as `data.check_records`.
    """
    if isinstance(records, Mapping):
        records = [records]
    return check_records(_many(records, name, "record"), name)


def as_callbacks(callbacks):
    """Callbacks as a list: None and one alone are accepted, as Keras does.

    Raises:
        ValueError: for what is not a callback, such as its class.
    """
    found = [] if callbacks is None else keras.tree.flatten(callbacks)
    for callback in found:
        if not isinstance(callback, keras.callbacks.Callback):
            raise ValueError(
                "Expected Keras callbacks, made objects, in a list or one alone. Received: "
                f"callbacks={callbacks!r:.200}"
            )
    return found


def _text(text, place):
    text = text.get("text") if isinstance(text, Mapping) else text
    if not isinstance(text, str):
        raise ValueError(
            'A text must be a str, or a dict with a str as its "text". Received: '
            f"{place}={text!r:.80} (type {type(text).__name__})"
        )
    return text if type(text) is str else str(text)  # NumPy has strings of its own


def _many(items, name, kind):
    """What holds several items in order, as a list."""
    unfit = isinstance(items, (str, bytes, bytearray, PathLike, set, frozenset)) or hasattr(
        items, "columns"
    )
    try:
        return list(None if unfit else items)
    except TypeError:
        hint = "; a file is read by `data.read_records`" if kind == "record" else ""
        raise ValueError(
            f"Expected a {kind}, or several in order: a list, an array, one column of a table{hint}. "
            f"Received: {name}={items!r:.80} (type {type(items).__name__})"
        ) from None
