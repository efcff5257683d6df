"""Which rule of an update a variable follows, by the last part of its path and its rank."""

import re

VECTORS = {"bias", "beta", "gamma", "scale"}
SCALES = {"gamma", "scale"}


def leaf(variable):
    """The last part of the path of a variable: "kernel" of "encoder/dense/kernel"."""
    return variable.path.rpartition("/")[2]


def center(variable):
    """What a variable shrinks towards: 1 for the scale of a normalisation, else 0."""
    return 1.0 if leaf(variable) in SCALES else 0.0


def is_vector(variable):
    """Whether a variable is a bias, part of a normalisation, or has at most one axis."""
    return leaf(variable) in VECTORS or len(variable.shape) <= 1


def matching(variables, pattern, argument):
    """Which variables have a path in which a regular expression is found.

    Args:
        variables: list of `keras.Variable`.
        pattern: str.
        argument: str, the name of the argument that holds it, for the error.

    Returns:
        A list of bools.

    Raises:
        ValueError: if it is found in no path.
    """
    found = [re.search(pattern, variable.path) is not None for variable in variables]
    if not any(found):
        raise ValueError(
            f"A rule matches no variable. Expected a regular expression for `re.search` on paths "
            f"such as {[variable.path for variable in variables[:5]]}. "
            f"Received: {argument}={pattern!r}"
        )
    return found
