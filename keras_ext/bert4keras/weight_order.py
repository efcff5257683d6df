"""The weights of each layer in bert4keras' order and under bert4keras' names, as data."""

import re
from fnmatch import fnmatchcase

import keras

from keras_ext import layers
from keras_ext.checkpoints.assign import WeightName


def _own(*names):
    return {name: name for name in names}


def _parts(names, **sublayers):
    """The variables of sub-layers: our attribute = bert4keras' path."""
    return {
        f"{ours}.{name}": f"{theirs}/{name}" for ours, theirs in sublayers.items() for name in names
    }


DENSE = ("kernel", "bias")
NORM = ("beta", "gamma")
RECURRENT = _parts(("kernel", "recurrent_kernel", "bias"), cell="cell")

# For each layer, in order: the path of a variable in our layer -> in bert4keras' (or Keras 2's).
# It counts where the layer has the variable: a layer without biases has none of those.
ORDERS = {
    layers.MultiHeadSelfAttention: _parts(
        DENSE,
        query_dense="q_dense",
        key_dense="k_dense",
        value_dense="v_dense",
        output_dense="o_dense",
    ),
    layers.FeedForward: _parts(DENSE, intermediate_dense="i0_dense", output_dense="o_dense"),
    # The first four and the last are those of `self_attention`, as of bert4keras 0.11.4; before,
    # o_dense came second.
    layers.GatedAttentionUnit: {
        **_parts(DENSE, input_dense="i_dense"),
        **_parts(NORM, query_scale_offset="q_scaleoffset", key_scale_offset="k_scaleoffset"),
        **_parts(DENSE, query_gate_dense="uq_dense", key_dense="k_dense"),
        **_parts(DENSE, value_dense="v_dense", output_dense="o_dense"),
    },
    layers.GlobalPointer: _parts(DENSE, dense="dense"),
    layers.EfficientGlobalPointer: _parts(DENSE, p_dense="p_dense", q_dense="q_dense"),
    layers.ScaleOffset: _own(*NORM),
    layers.PositionEmbedding: _own("embeddings"),
    layers.RelativePositionEmbedding: _own("embeddings"),
    keras.layers.Embedding: _own("embeddings"),
    keras.layers.ReversibleEmbedding: _own("embeddings"),
    layers.LayerNorm: _own(*NORM),
    # Keras' own layer has gamma first.
    keras.layers.LayerNormalization: _own(*NORM),
    keras.layers.Dense: _own(*DENSE),
    keras.layers.Conv1D: _own(*DENSE),
    keras.layers.BatchNormalization: _own("gamma", "beta", "moving_mean", "moving_variance"),
    keras.layers.SimpleRNN: RECURRENT,
    keras.layers.LSTM: RECURRENT,
    keras.layers.GRU: RECURRENT,
    keras.layers.Bidirectional: {
        f"{direction}_layer.{ours}": f"{direction}_layer/{theirs}"
        for direction in ("forward", "backward")
        for ours, theirs in RECURRENT.items()
    },
}
# What older versions called a variable: before 0.11 an offset alone was a layer BiasAdd.
FORMER = {layers.ScaleOffset: {"beta": "bias"}}
# bert4keras' paths of sub-layers -> how Keras 2 names such ones before it numbers them: the kernel
# of the second "dense" is "dense_1/kernel" in a file.
KINDS = {
    "": "",
    "*dense": "dense",
    "*scaleoffset": "scale_offset",
    "cell": "*",
    "forward_layer/*": "forward_*",
    "backward_layer/*": "backward_*",
}


def weight_order(layer):
    """The weights of a layer in bert4keras' order.

    Args:
        layer: a built layer.

    Returns:
        List of `WeightName`, whose names are paths in bert4keras' layer, such as "q_dense/kernel".

    Raises:
        ValueError: if the layer has a weight whose place in bert4keras is not known.

    Example:

    >>> layer = layers.FeedForward(4, use_bias=False)
    >>> layer.build((None, 3))
    >>> [row.name for row in weight_order(layer)]
    ['i0_dense/kernel', 'o_dense/kernel']
    """
    order = ORDERS.get(type(layer), {})
    rows = [WeightName(layer, ours, theirs) for ours, theirs in order.items()]
    rows = [row for row in rows if row.exists()]
    known = {id(row.variable()) for row in rows}
    unknown = [weight.path for weight in layer.weights if id(weight) not in known]
    if unknown:
        raise ValueError(
            "bert4keras and Keras 2 have no such layer, or not in this form; its weights have no "
            f"place in their files. Received: layer={layer.name!r} of class "
            f"{type(layer).__name__} with {', '.join(unknown)}"
        )
    return rows


def layers_with_weights(model):
    """The layers of a model that have weights, by name; those of models inside it, too.

    Args:
        model: `keras.Model`.

    Returns:
        Dict from names to layers, in the order of the model.

    Raises:
        ValueError: if two layers have the same name; for an encoder whose residual is not "post".
    """
    # Names and shapes would fit; the values would mean something else.
    residual = getattr(model, "residual", "post")
    if isinstance(residual, str) and residual != "post":
        raise ValueError(
            'The encoders of bert4keras have the residual "post" only; weights of another one do '
            f"not mean the same there. Received: {residual=}, model={model.name!r}"
        )
    found = {}
    for layer in model.layers:
        is_model = isinstance(layer, keras.Model)
        inner = layers_with_weights(layer) if is_model else {layer.name: layer}
        for name, part in inner.items():
            if part.weights and found.setdefault(name, part) is not part:
                raise ValueError(
                    "Layers in a file are told apart by their names; give each part its own. "
                    f"Received: two layers of the name {name!r} in the model {model.name!r}"
                )
    return found


def find_weights(rows, names):
    """Which name of a file stands for which weight of a layer.

    Files hold bert4keras' own paths (TensorFlow's format, and ours), or names of sub-layers that
    Keras has numbered as they were made ("dense_7/kernel"). Those are told apart by kind and by
    the order of their numbers, not by the place in the file: a sub-layer that was frozen comes last
    there, and a `GatedAttentionUnit` had another order before bert4keras 0.11.4.

    Args:
        rows: list of `WeightName`, those of `weight_order`.
        names: iterable of str, names in the file without that of the layer.

    Returns:
        Dict from attributes to names, of those that were found.

    Raises:
        ValueError: if the file has more or fewer sub-layers of a kind than the layer.

    Example:

    >>> layer = layers.FeedForward(4, use_bias=False)
    >>> layer.build((None, 3))
    >>> find_weights(weight_order(layer), ["dense_10/kernel", "dense_9/kernel"])
    {'intermediate_dense.kernel': 'dense_9/kernel', 'output_dense.kernel': 'dense_10/kernel'}
    """
    names = list(names)
    if any(row.name in names for row in rows):
        return {row.attribute: row.name for row in rows if row.name in names}
    groups = {}  # sub-layer in the file -> variable -> name
    for name in names:
        sublayer, _, variable = name.rpartition("/")
        groups.setdefault(sublayer, {})[variable] = name
    kinds = {}  # kind -> sub-layer of bert4keras -> variable -> row
    for row in rows:
        sublayer, _, variable = row.name.rpartition("/")
        kind = next(kind for path, kind in KINDS.items() if fnmatchcase(sublayer, path))
        kinds.setdefault(kind, {}).setdefault(sublayer, {})[variable] = row
    found = {}
    for kind, ours in kinds.items():
        theirs = sorted((g for g in groups if fnmatchcase(_kind(g), kind)), key=_number)
        if kind and len(ours) != len(theirs):
            raise ValueError(
                f"expected {len(ours)} sub-layers ({', '.join(ours)}), found {len(theirs)}"
            )
        for variables, there in zip(ours.values(), theirs, strict=bool(kind)):
            for variable, row in variables.items():
                former = FORMER.get(type(row.layer), {}).get(variable)
                name = groups[there].get(variable, groups[there].get(former))
                if name is not None:
                    found[row.attribute] = name
    return found


def _kind(sublayer):
    return re.sub(r"_\d+$", "", sublayer.partition("/")[0])


def _number(sublayer):
    return int(re.search(r"(?:_(\d+))?$", sublayer.partition("/")[0]).group(1) or 0)
