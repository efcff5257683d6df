"""Settings as they come from users: as plain Python values, or refused."""

import math
import operator
from numbers import Real


def whole(name, value, least=1):
    """A setting that counts something, as a Python int, which JSON can hold.

    Args:
        name: str, its name.
        value: an int or a NumPy integer.
        least: int, the smallest that is allowed.

    Returns:
        int.

    Raises:
        ValueError: for anything else, such as a bool or a float, and below `least`.

    Example:

    >>> import numpy as np
    >>> whole("steps", np.int64(4))
    4
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    # Of NumPy's arrays only those of one integer are one, and its booleans are not.
    if number is None or isinstance(value, bool) or number < least:
        raise ValueError(
            f"Expected {name} to be an int of at least {least}. Received: {name}={value!r}"
        )
    return number


def number(name, value):
    """A setting that is a finite number, as a Python float.

    Args:
        name: str, its name.
        value: an int, a float or a NumPy number.

    Returns:
        float.

    Raises:
        ValueError: for anything else, such as a bool, a string or NaN.

    Example:

    >>> number("rate", 1)
    1.0
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"Expected {name} to be a finite number. Received: {name}={value!r}")
    return float(value)


def effective(name, value, default, condition, holds):
    """An argument that has an effect under a condition only.

    Args:
        name: str, its name.
        value: what was given, or None.
        default: the value if None was given.
        condition: str, the condition as a user writes it.
        holds: bool, whether it holds.

    Returns:
        The value or its default; None where it has no effect.

    Raises:
        ValueError: if it was given and has no effect. The default itself is let pass: the files of
            versions that did not look at the condition hold it.

    Example:

    >>> effective("shrink_ratio", None, 0.99, 'mode="shrink"', holds=True)
    0.99
    """
    if holds:
        return default if value is None else value
    if value is not None and value != default:
        raise ValueError(
            f"{name} has an effect only with {condition}. Expected that, or no {name}. "
            f"Received: {name}={value!r}"
        )
    return None


def share(name, value):
    """A setting that is a part of something, as a Python float in [0, 1).

    Args:
        name: str, its name.
        value: an int, a float or a NumPy number.

    Returns:
        float.

    Raises:
        ValueError: for anything else, below 0, and from 1 on.

    Example:

    >>> share("decay", 0.5)
    0.5
    """
    if not 0 <= number(name, value) < 1:
        raise ValueError(f"Expected {name} in [0, 1). Received: {name}={value!r}")
    return float(value)


def one_of(name, value, choices):
    """A setting that is one of some names.

    Args:
        name: str, its name.
        value: what was given.
        choices: tuple of str.

    Returns:
        str.

    Raises:
        ValueError: for anything else; it lists the names.

    Example:

    >>> one_of("mode", "tanh", ("tanh", "sigmoid"))
    'tanh'
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"Unknown {name}, expected one of {choices}. Received: {name}={value!r}")
    return value
