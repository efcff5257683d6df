"""Checks of the numbers in config files, which other programs and people write."""

import math
from numbers import Integral, Real

RANGES = {
    "a positive int": lambda x: isinstance(x, Integral) and x > 0,
    "an int from 1 to 1000": lambda x: isinstance(x, Integral) and 1 <= x <= 1000,
    "an int of at least 0": lambda x: isinstance(x, Integral) and x >= 0,
    "a number in [0, 1)": lambda x: 0 <= x < 1,
    "a positive number": lambda x: 0 < x < math.inf,
}


def check_number(field, value, expected):
    """Raises ValueError unless the value of a field of a config is what is expected.

    Args:
        field: str, the name of the field.
        value: what the config has there.
        expected: str, a key of `RANGES`.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not RANGES[expected](value):
        raise ValueError(f"Expected {field} to be {expected}. Received: {field}={value!r}")
