"""Layers that Keras 3 has as Keras 2 had them: which, with what arguments, and how called."""

from typing import Any, NamedTuple

import keras

from keras_ext.bert4keras.convert_calls import (
    end_mask,
    ignore_mask,
    keep_mask,
    merge_masks,
    pool_max,
    use_mask,
)
from keras_ext.bert4keras.legacy_config import general, plain_arguments
from keras_ext.layers.attach_mask import AttachMask


class Translator(NamedTuple):
    """How one class of layers is made and called.

    Attributes:
        make: function of the config, the list of its calls (`Node`) and the `Graph`; it gives what
            `call` needs, mostly a layer, or raises ValueError for what has no counterpart.
        call: function of `convert_calls`.

    Example:

    >>> from keras_ext.bert4keras.convert_calls import Flow
    >>> layer = KERAS_LAYERS["Dense"].make({"name": "tags", "units": 3}, [], None)
    >>> flow = KERAS_LAYERS["Dense"].call(layer, [Flow(keras.Input((5,)))], {})
    >>> flow.tensor.shape
    (None, 3)
    """

    make: Any
    call: Any


def _same(name, call, *arguments, **defaults):
    """A layer that Keras 3 has as Keras 2 had it, with these arguments."""

    def make(config, nodes, graph):
        return getattr(keras.layers, name)(**plain_arguments({**defaults, **config}, arguments))

    return Translator(make, call)


def with_mask(layer):
    """A layer and the `AttachMask` for its output."""
    return layer, AttachMask(dtype=layer.dtype_policy, name=f"{layer.name}-Mask")


def _merge(name, *arguments):
    """A layer of many inputs that Keras 3 has as Keras 2 had it."""
    make = _same(name, None, *arguments).make
    return Translator(lambda *given: with_mask(make(*given)), merge_masks)


def _batch_normalization(config, nodes, graph):
    axis = config.get("axis", -1)
    config = {**config, "axis": axis[0] if isinstance(axis, list) else axis}
    names = ("axis", "momentum", "epsilon", "center", "scale")
    return with_mask(keras.layers.BatchNormalization(**plain_arguments(config, names)))


def _bidirectional(config, nodes, graph):
    def inner(part):
        cls = part["class_name"]
        if cls not in ("GRU", "LSTM", "SimpleRNN"):
            raise ValueError(f"around {cls} it has no counterpart")
        return KERAS_LAYERS[cls].make(part["config"], [], graph)

    if config.get("merge_mode") is None:
        raise ValueError("with two outputs (merge_mode=None) it has no counterpart")
    backward = config.get("backward_layer")
    return keras.layers.Bidirectional(
        inner(config["layer"]),
        merge_mode=config["merge_mode"],
        backward_layer=backward and inner(backward),
        **general(config),
    )


POOL = ("pool_size", "strides", "padding", "data_format")
RECURRENT = (
    "units",
    "activation",
    "use_bias",
    "dropout",
    "recurrent_dropout",
    "return_sequences",
    "go_backwards",
    "unroll",
)
KERAS_LAYERS = {
    # === Keras, as bert4keras changes it ===
    "GlobalAveragePooling1D": _same("GlobalAveragePooling1D", use_mask, "data_format", "keepdims"),
    "GlobalMaxPooling1D": _same("GlobalMaxPooling1D", pool_max, "data_format", "keepdims"),
    # === Keras ===
    "Activation": _same("Activation", keep_mask, "activation"),
    "AveragePooling1D": _same("AveragePooling1D", end_mask, *POOL),
    "BatchNormalization": Translator(_batch_normalization, ignore_mask),
    "Bidirectional": Translator(_bidirectional, use_mask),
    "Conv1D": _same(
        "Conv1D",
        end_mask,
        "filters",
        "kernel_size",
        "strides",
        "padding",
        "data_format",
        "dilation_rate",
        "groups",
        "activation",
        "use_bias",
    ),
    "Dense": _same("Dense", keep_mask, "units", "activation", "use_bias"),
    "Dropout": _same("Dropout", keep_mask, "rate", "noise_shape", "seed"),
    "Flatten": _same("Flatten", end_mask, "data_format"),
    "GRU": _same(
        "GRU", use_mask, *RECURRENT, "recurrent_activation", "reset_after", reset_after=False
    ),
    "LSTM": _same("LSTM", use_mask, *RECURRENT, "recurrent_activation"),
    "MaxPooling1D": _same("MaxPooling1D", end_mask, *POOL),
    "Permute": _same("Permute", end_mask, "dims"),
    "RepeatVector": _same("RepeatVector", end_mask, "n"),
    "Reshape": _same("Reshape", end_mask, "target_shape"),
    "SimpleRNN": _same("SimpleRNN", use_mask, *RECURRENT),
    **{
        name: _merge(name, *arguments)
        for name, *arguments in (
            ("Add",),
            ("Average",),
            ("Concatenate", "axis"),
            ("Maximum",),
            ("Minimum",),
            ("Multiply",),
            ("Subtract",),
        )
    },
}
