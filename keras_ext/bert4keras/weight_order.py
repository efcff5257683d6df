"""The weights of each layer in bert4keras' order and under bert4keras' names, as data."""

import re
from fnmatch import fnmatchcase
from operator import attrgetter
from typing import NamedTuple

import keras

from keras_ext import layers


class OrderedWeight(NamedTuple):
    """One weight of a layer.

    Attributes:
        attribute: path of the variable in our layer, such as "query_dense.kernel".
        path: path of the variable in bert4keras' (or Keras 2's) layer, such as "q_dense/kernel".
        kind: how Keras 2 names the sub-layers of that kind before it numbers them, a pattern: the
            kernel of the second "dense" is "dense_1/kernel" in a file. Empty without a sub-layer.
        former: another last part of the path, that of older versions.

    Example:

    >>> ORDERS[layers.ScaleOffset][1]
    OrderedWeight(attribute='gamma', path='gamma', kind='', former=None)
    """

    attribute: str
    path: str
    kind: str = ""
    former: str | None = None

    @property
    def sublayer(self):
        """The path without the variable, such as "q_dense"."""
        return self.path.rpartition("/")[0]


def _own(*names):
    return tuple(OrderedWeight(name, name) for name in names)


def _parts(kind, names, **sublayers):
    """Rows of the sub-layers of one kind: our attribute = bert4keras' path."""
    return tuple(
        OrderedWeight(f"{ours}.{name}", f"{theirs}/{name}", kind)
        for ours, theirs in sublayers.items()
        for name in names
    )


DENSE = ("kernel", "bias")
NORM = ("beta", "gamma")
CELL = ("kernel", "recurrent_kernel", "bias")
RECURRENT = tuple(OrderedWeight(f"cell.{name}", f"cell/{name}", "*") for name in CELL)

# A row counts where the layer has the variable: a layer without biases has none of those rows.
ORDERS = {
    layers.MultiHeadSelfAttention: _parts(
        "dense",
        DENSE,
        query_dense="q_dense",
        key_dense="k_dense",
        value_dense="v_dense",
        output_dense="o_dense",
    ),
    layers.FeedForward: _parts(
        "dense", DENSE, intermediate_dense="i0_dense", output_dense="o_dense"
    ),
    # The first four and the last are those of `self_attention`, as of bert4keras 0.11.4; before,
    # o_dense came second.
    layers.GatedAttentionUnit: (
        *_parts("dense", DENSE, input_dense="i_dense"),
        *_parts(
            "scale_offset",
            NORM,
            query_scale_offset="q_scaleoffset",
            key_scale_offset="k_scaleoffset",
        ),
        *_parts(
            "dense",
            DENSE,
            query_gate_dense="uq_dense",
            key_dense="k_dense",
            value_dense="v_dense",
            output_dense="o_dense",
        ),
    ),
    layers.GlobalPointer: _parts("dense", DENSE, dense="dense"),
    layers.EfficientGlobalPointer: _parts("dense", DENSE, p_dense="p_dense", q_dense="q_dense"),
    # Before 0.11 an offset alone was a layer BiasAdd.
    layers.ScaleOffset: (OrderedWeight("beta", "beta", "", "bias"), *_own("gamma")),
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
    keras.layers.Bidirectional: tuple(
        row._replace(
            attribute=f"{direction}_layer.{row.attribute}",
            path=f"{direction}_layer/{row.path}",
            kind=f"{direction}_*",
        )
        for direction in ("forward", "backward")
        for row in RECURRENT
    ),
}


def weight_order(layer):
    """The weights of a layer in bert4keras' order.

    Args:
        layer: a built layer.

    Returns:
        List of `OrderedWeight`.

    Raises:
        ValueError: if the layer has a weight whose place in bert4keras is not known.

    Example:

    >>> layer = layers.FeedForward(4, use_bias=False)
    >>> layer.build((None, 3))
    >>> [row.path for row in weight_order(layer)]
    ['i0_dense/kernel', 'o_dense/kernel']
    """
    rows = [row for row in ORDERS.get(type(layer), ()) if _variable(layer, row) is not None]
    known = {id(_variable(layer, row)) for row in rows}
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


def _variable(layer, row):
    try:
        return attrgetter(row.attribute)(layer)
    except AttributeError:
        return None


def find_weights(rows, names):
    """Which name of a file stands for which weight of a layer.

    Files hold bert4keras' own paths (TensorFlow's format, and ours), or names of sub-layers that
    Keras has numbered as they were made ("dense_7/kernel"). Those are told apart by kind and by
    the order of their numbers, not by the place in the file: a sub-layer that was frozen comes last
    there, and a `GatedAttentionUnit` had another order before bert4keras 0.11.4.

    Args:
        rows: list of `OrderedWeight`, those of a layer.
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
    if any(row.path in names for row in rows):
        return {row.attribute: row.path for row in rows if row.path in names}
    groups = {}  # sub-layer in the file -> variable -> name
    for name in names:
        sublayer, _, variable = name.rpartition("/")
        groups.setdefault(sublayer, {})[variable] = name
    found = {}
    for kind in dict.fromkeys(row.kind for row in rows):
        ours = list(dict.fromkeys(row.sublayer for row in rows if row.kind == kind))
        theirs = sorted((g for g in groups if fnmatchcase(_kind(g), kind)), key=_number)
        if kind and len(ours) != len(theirs):
            raise ValueError(
                f"expected {len(ours)} sub-layers ({', '.join(ours)}), found {len(theirs)}"
            )
        for row in rows:
            if row.kind == kind:
                variables = groups[theirs[ours.index(row.sublayer)]] if theirs else {}
                last = row.path.rpartition("/")[2]
                name = variables.get(last, variables.get(row.former))
                if name is not None:
                    found[row.attribute] = name
    return found


def _kind(sublayer):
    return re.sub(r"_\d+$", "", sublayer.partition("/")[0])


def _number(sublayer):
    return int(re.search(r"(?:_(\d+))?$", sublayer.partition("/")[0]).group(1) or 0)
