"""Looking up the weights of a model in a table of names."""

import re
from operator import attrgetter

from keras_ext.checkpoints.checkpoint import NamedWeight
from keras_ext.checkpoints.names import WeightName, weight_names

COLUMNS = ("google", "huggingface")
# Heads, and a table of segments, that a file may have beyond what the model was given.
OPTIONAL = (
    "Embedding-Segment",
    "Pooler-Dense",
    "NSP-Proba",
    "MLM-Dense",
    "MLM-Norm",
    "MLM-Bias",
    "Output-Mapping",
    "Discriminator-Dense",
    "Discriminator-Prediction",
)
# Weights that no checkpoint holds, because they are computed: patterns of their paths.
CONSTANTS = ("*Embedding-Relative-Position/embeddings",)


def rows_in(model, table=None):
    """The rows of a table that a model has, with the numbers of its blocks.

    Args:
        model: encoder, or another `keras.Model` with layers of the same names.
        table: tuple of `WeightName`. Defaults to the encoder's, `weight_names`.

    Returns:
        List of `WeightName` in the order of the table, block after block. Rows of layers or
        variables (such as biases) that the model does not have are left out.

    Raises:
        ValueError: if `table` is None and the model is no encoder.
    """
    table = weight_names(model) if table is None else table
    return [row for row in _expanded(model, table) if _has(model, row)]


def names_in(model, column, table=None):
    """Where a format keeps each weight of a model.

    Args:
        model: encoder, or another `keras.Model` with layers of the same names.
        column: "google" or "huggingface".
        table: tuple of `WeightName`. Defaults to the encoder's, `weight_names`.

    Returns:
        List of `NamedWeight`. Weights that the format does not have are left out.

    Raises:
        ValueError: for another column, or if `table` is None and the model is no encoder.

    Example:

    >>> from keras_ext.models import BertEncoder
    >>> encoder = BertEncoder(9, num_layers=1, num_heads=1, hidden_dim=4, intermediate_dim=8)
    >>> names_in(encoder, "huggingface")[5]
    NamedWeight(layer='Transformer-0-MultiHeadSelfAttention', attribute='query_dense.kernel', \
name='bert.encoder.layer.0.attention.self.query.weight', transpose=True)
    """
    _check_column(column)
    rows = [(row, getattr(row, column)) for row in rows_in(model, table)]
    return [
        NamedWeight(row.layer, row.attribute, name, is_transposed(row, column))
        for row, name in rows
        if name is not None
    ]


def absent_names(model, column, table=None):
    """The names of the heads, and of the table of segments, that a model was not given.

    Args:
        model: encoder, or another `keras.Model` with layers of the same names.
        column: "google" or "huggingface".
        table: tuple of `WeightName`. Defaults to the encoder's, `weight_names`.

    Returns:
        Tuple of names, those that a strict load may leave over.

    Raises:
        ValueError: as `names_in`.

    Example:

    >>> from keras_ext.models import BertEncoder
    >>> encoder = BertEncoder(9, num_layers=1, num_heads=1, hidden_dim=4, intermediate_dim=8)
    >>> absent_names(encoder, "google")[0]
    'bert/pooler/dense/kernel'
    """
    _check_column(column)
    layers = {layer.name for layer in model.layers}
    table = weight_names(model) if table is None else table
    rows = (row for row in table if row.layer in OPTIONAL)
    names = (getattr(row, column) for row in rows if row.layer not in layers)
    return tuple(name for name in names if name is not None)


def _check_column(column):
    if column not in COLUMNS:
        raise ValueError(f"Expected a column of {COLUMNS}. Received: {column=}")


def is_transposed(row, column):
    """Whether a format keeps a weight transposed."""
    if column == "google":
        return row.google == "cls/seq_relationship/output_weights"
    return row.attribute.endswith("kernel")


def _expanded(model, table):
    """The rows, those with "{i}" once for each block of the model, block after block."""
    numbers = {re.sub(r"^Transformer-(\d+)-.*|.*", r"\1", layer.name) for layer in model.layers}
    blocks = sorted(int(number) for number in numbers if number)
    repeated = [row for row in table if "{i}" in row.layer]
    for row in table:
        if "{i}" not in row.layer:
            yield row
        elif row is repeated[0]:
            for i in blocks:
                for other in repeated:
                    yield WeightName(*(text and text.replace("{i}", str(i)) for text in other))


def _has(model, row):
    layers = {layer.name: layer for layer in model.layers}
    if row.layer not in layers:
        return False
    try:
        return attrgetter(row.attribute)(layers[row.layer]) is not None
    except AttributeError:
        return False
