"""JSON files that other programs and people wrote: whether each key holds what it should."""

import math
from numbers import Integral, Real
from pathlib import Path


def _is_int(value):
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool)


def _are(kind):
    return lambda values: all(isinstance(value, kind) for value in values)


# What a field may be told to be; each also with " or null" behind it.
KINDS = {
    "a string": lambda x: isinstance(x, str),
    "true or false": lambda x: isinstance(x, bool),
    "true, false or null": lambda x: x is None or isinstance(x, bool),
    "an integer": _is_int,
    "a positive integer": lambda x: _is_int(x) and x > 0,
    "an integer of at least 0": lambda x: _is_int(x) and x >= 0,
    "an integer from 1 to 1000": lambda x: _is_int(x) and 1 <= x <= 1000,
    "a number": _is_number,
    "a positive number": lambda x: _is_number(x) and x > 0,
    "a positive, finite number": lambda x: _is_number(x) and 0 < x < math.inf,
    "a number in [0, 1)": lambda x: _is_number(x) and 0 <= x < 1,
    "a number or an object of numbers": lambda x: all(
        map(_is_number, x.values() if isinstance(x, dict) else [x])
    ),
    "a list of lists": lambda x: isinstance(x, list) and _are(list)(x),
    "a list of strings or of lists": lambda x: isinstance(x, list) and _are(str | list)(x),
    "a list of strings": lambda x: isinstance(x, list) and _are(str)(x),
    "a string or a list of strings": lambda x: isinstance(x, str) or KINDS["a list of strings"](x),
    "an object": lambda x: isinstance(x, dict),
    "an object of strings": lambda x: isinstance(x, dict) and _are(str)(x.values()),
    "an object of integers": lambda x: isinstance(x, dict) and all(map(_is_int, x.values())),
}


def check_field(name, value, kind, path=None):
    """Raises ValueError unless a field holds what it should.

    Args:
        name: str, the name of the field.
        value: what it holds.
        kind: str, what it should be, a key of `KINDS`, perhaps with " or null" behind it.
        path: path of the file. None: nobody knows it here.

    Example:

    >>> check_field("size", 9, "a positive integer")
    >>> check_field("size", "9", "an integer or null")
    Traceback (most recent call last):
    ValueError: "size" should be an integer or null. Received: size='9'
    """
    plain = kind if kind in KINDS else kind.removesuffix(" or null")
    if not KINDS[plain](value) and (plain == kind or value is not None):
        where, file = "", ""
        if path is not None:
            where, file = f"In {Path(path).name}, ", f", path={str(path)!r}"
        raise ValueError(f'{where}"{name}" should be {kind}. Received: {name}={value!r:.80}{file}')


def check_fields(content, path, needed, optional=None, within="", others=True):
    """Raises ValueError, naming file and key, unless an object of a JSON file is as it should be.

    Args:
        content: what the file holds, or a part of it.
        path: path of the file.
        needed: dict from keys to what they should be, as for `check_field`.
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
        if key in content:
            check_field(full, content[key], kind, path)
        elif key in needed:
            raise ValueError(
                f'{name} lacks "{full}", which should be {kind}. Received: path={str(path)!r}'
            )
    unknown = [] if others else sorted(set(content) - set(fields))
    if unknown:
        raise ValueError(
            f"In {name}, {what} has keys that are not known here. "
            f"Received: {unknown}, path={str(path)!r}"
        )
