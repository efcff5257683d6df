"""JSON files that other programs and people wrote: whether each key holds what it should."""

from pathlib import Path


def _is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _are(kind):
    return lambda values: all(isinstance(value, kind) for value in values)


KINDS = {
    "a string": lambda x: isinstance(x, str),
    "a string or null": lambda x: x is None or isinstance(x, str),
    "true or false": lambda x: isinstance(x, bool),
    "an integer": _is_int,
    "true, false or null": lambda x: x is None or isinstance(x, bool),
    "an integer or null": lambda x: x is None or _is_int(x),
    "a positive integer": lambda x: _is_int(x) and x > 0,
    "a positive integer or null": lambda x: x is None or (_is_int(x) and x > 0),
    "a positive number or null": lambda x: KINDS["a number or null"](x) and (x is None or x > 0),
    "a number or null": lambda x: x is None or _is_int(x) or isinstance(x, float),
    "a number or an object of numbers": lambda x: all(
        _is_int(y) or isinstance(y, float) for y in (x.values() if isinstance(x, dict) else [x])
    ),
    "a list of lists": lambda x: isinstance(x, list) and _are(list)(x),
    "a list of strings or of lists": lambda x: isinstance(x, list) and _are(str | list)(x),
    "a list of strings": lambda x: isinstance(x, list) and _are(str)(x),
    "a string or a list of strings": lambda x: isinstance(x, str) or KINDS["a list of strings"](x),
    "an object": lambda x: isinstance(x, dict),
    "an object or null": lambda x: x is None or isinstance(x, dict),
    "an object of strings": lambda x: isinstance(x, dict) and _are(str)(x.values()),
    "an object of integers": lambda x: isinstance(x, dict) and all(map(_is_int, x.values())),
}


def check_fields(content, path, needed, optional=None, within="", others=True):
    """Raises ValueError, naming file and key, unless an object of a JSON file is as it should be.

    Args:
        content: what the file holds, or a part of it.
        path: path of the file.
        needed: dict from keys to what they should be, keys of `KINDS`.
        optional: the same, of keys that may lack.
        within: str, where in the file the object stands, such as "settings".
        others: bool, whether it may have more keys.

    Example:

    >>> check_fields({"size": "9"}, "config.json", {"size": "an integer"})
    Traceback (most recent call last):
    ValueError: In config.json, "size" should be an integer. Received: size='9', path='config.json'
    """
    name, fields = Path(path).name, {**needed, **(optional or {})}
    what = f'"{within}"' if within else "what it holds"
    if not isinstance(content, dict):
        raise ValueError(
            f"In {name}, {what} should be an object. Received: {content!r:.80}, path={str(path)!r}"
        )
    for key, kind in fields.items():
        full = f"{within}.{key}" if within else key
        if key in content and not KINDS[kind](content[key]):
            raise ValueError(
                f'In {name}, "{full}" should be {kind}. '
                f"Received: {key}={content[key]!r:.80}, path={str(path)!r}"
            )
        if key in needed and key not in content:
            raise ValueError(
                f'{name} lacks "{full}", which should be {kind}. Received: path={str(path)!r}'
            )
    unknown = [] if others else sorted(set(content) - set(fields))
    if unknown:
        raise ValueError(
            f"In {name}, {what} has keys that are not known here. "
            f"Received: {unknown}, path={str(path)!r}"
        )
