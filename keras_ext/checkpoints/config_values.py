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
# Arguments of layers and encoders of which each unit has a weight of its own.
SIZES = (
    *("embedding_dim", "filters", "head_size", "heads", "hidden_dim", "input_dim", "key_size"),
    *("intermediate_dim", "max_sequence_length", "num_heads", "num_segments", "output_dim"),
    *("units", "vocabulary_size"),
)
MOST_LAYERS = 1000  # that a number in a config may ask for


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


def check_claims(config, size, path):
    """Raises ValueError where the description of a model claims more than its file can hold.

    A layer of n units has n weights at least, of a byte each at least.

    Args:
        config: what JSON gave.
        size: int, bytes of the file with the weights.
        path: the file, for the message.
    """
    waiting = [config]
    while waiting:
        item = waiting.pop()
        children = item.values() if isinstance(item, dict) else item
        waiting += [child for child in children if isinstance(child, dict | list)]
        for key, value in item.items() if isinstance(item, dict) else ():
            most = MOST_LAYERS if key == "num_layers" else size if key in SIZES else math.inf
            if isinstance(value, Real) and value > most:
                raise ValueError(
                    f"The description of the model claims more than the file of {size} bytes can "
                    f"hold; expected {key} to be at most {most}. "
                    f"Received: {key}={value!r}, path={str(path)!r}"
                )
