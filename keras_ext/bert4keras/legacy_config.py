"""What the configs of Keras 2 say about a layer, in today's words."""

import keras

from keras_ext import activations

# Keras 2's names, and bert4keras' own. "hard_sigmoid" is another function in Keras 3.
ACTIVATIONS = {
    "gelu_erf": "gelu",
    "swish": "silu",
    **{
        name: name
        for name in (
            "elu",
            "exponential",
            "gelu",
            "gelu_tanh",
            "leaky_relu",
            "linear",
            "relu",
            "selu",
            "sigmoid",
            "silu",
            "softmax",
            "softplus",
            "softsign",
            "tanh",
        )
    },
}
# Settings that say how weights begin or how arrays come in, and have no bearing on a full model.
WITHOUT_BEARING = ("batch_input_shape", "implementation", "input_length", "unit_forget_bias")
LOST = ("_regularizer", "_constraint")


def activation(value):
    """The function that a Keras 2 config names; "gelu" is the exact one.

    Args:
        value: None, a name, or the config of a serialised function.

    Returns:
        Function.

    Raises:
        ValueError: for a function that has no counterpart.

    Example:

    >>> activation({"class_name": "function", "config": "gelu_erf"}).__name__
    'gelu'
    """
    name = value.get("config") if isinstance(value, dict) else value
    name = name.rpartition(">")[2] if isinstance(name, str) else name
    if name is None:
        return keras.activations.linear
    if name not in ACTIVATIONS:
        raise ValueError(f"the activation {value!r} has no counterpart")
    return activations.get(ACTIVATIONS[name])


def policy(value):
    """The dtype policy that a Keras 2 config names.

    Args:
        value: None, a name, or the config of a policy.

    Returns:
        `keras.DTypePolicy`.

    Raises:
        ValueError: for what is none.

    Example:

    >>> policy({"class_name": "Policy", "config": {"name": "mixed_float16"}}).compute_dtype
    'float16'
    """
    name = value["config"]["name"] if isinstance(value, dict) else value
    return keras.DTypePolicy(name or "float32")


def general(config):
    """The arguments that every layer has."""
    return {
        "name": config["name"],
        "dtype": policy(config.get("dtype")),
        "trainable": config.get("trainable", True),
    }


def plain_arguments(config, names):
    """The arguments of a layer that Keras 3 has as Keras 2 had it.

    Args:
        config: dict of Keras 2.
        names: the arguments that the layer has in Keras 3, besides those of every layer.

    Returns:
        Dict. Initializers are left out, since every weight is set; regularizers and constraints,
        too (see `lost_settings`).

    Raises:
        ValueError: for a setting that Keras 3 does not have.

    Example:

    >>> config = {"name": "tags", "units": 3, "activation": "softmax", "bias_constraint": None}
    >>> sorted(plain_arguments(config, ("units", "activation")))
    ['activation', 'dtype', 'name', 'trainable', 'units']
    """
    arguments = general(config)
    for key, value in config.items():
        if key in arguments or key in WITHOUT_BEARING or key.endswith(("_initializer", *LOST)):
            continue
        if key.endswith("activation"):
            value = activation(value)
        if key in names:
            arguments[key] = value
        elif value:
            raise ValueError(f"the setting {key}={value!r} has no counterpart")
    return arguments


def lost_settings(config):
    """The regularizers and constraints of a layer, and of one inside it, that are not kept."""
    inner = [part.get("config") for part in config.values() if isinstance(part, dict)]
    lost = [key for key, value in config.items() if key.endswith(LOST) and value]
    return lost + [key for part in inner if isinstance(part, dict) for key in lost_settings(part)]
