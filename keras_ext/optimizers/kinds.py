"""Which rule of an update a variable follows, by the last part of its path and its rank."""

import re

BY_NAME = {
    "beta": "bias",
    "gamma": "gain",
    "gain": "gain",
    "scale": "gain",
    "log_scale": "temperature",
    "shift": "bias",  # of learnt codes from where they began
}
"""The kinds of the names that do not say it themselves."""


def leaf(variable):
    """The last part of the path of a variable: "kernel" of "encoder/dense/kernel"."""
    return variable.path.rpartition("/")[2]


def kind(variable):
    """What a variable is, by the last part of its path; by its rank, if that is not known.

    Args:
        variable: a `keras.Variable`.

    Returns:
        "bias", an offset too; "gain" of a normalisation; "temperature"; "table" of embeddings;
        "vector", any other of at most one axis; or "matrix", all the rest.
    """
    name, vector = leaf(variable), len(variable.shape) <= 1
    if name in BY_NAME:
        return BY_NAME[name]
    if name.endswith("bias"):
        return "bias"
    if vector:
        return "vector"
    return "table" if name.endswith("embeddings") else "matrix"


def center(variable):
    """What a variable shrinks towards: 1 for the gain of a normalisation, else 0.

    There a layer passes on what it gets. So a temperature, whose weight is a logarithm, goes to 1.
    """
    return 1.0 if kind(variable) == "gain" else 0.0


def is_vector(variable):
    """Whether a variable is a bias, gain or temperature, or has at most one axis."""
    return kind(variable) not in ("table", "matrix")


def vectors(variables, pattern=None, argument=None):
    """Which variables are not matrices, so that neither decay nor the size of the weight is for them.

    Args:
        variables: list of `keras.Variable`.
        pattern: str, in place of the rule `is_vector`: as in `matching`; or None.
        argument: str, as there.

    Returns:
        A list of bools.
    """
    if pattern is not None:
        return matching(variables, pattern, argument)
    return [is_vector(variable) for variable in variables]


def undecayed(variables):
    """The variables that weight decay leaves alone: biases, gains, temperatures, other vectors.

    They are for `exclude_from_weight_decay(var_list=...)`. Its `var_names` are looked for in the
    whole path on TensorFlow, where the kernel of a layer named "beta_dense" is a "beta".
    """
    return [v for v, alone in zip(variables, vectors(variables), strict=True) if alone]


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
