"""Looking up the weights of a model in a table of names."""

import re

from keras_ext.checkpoints.name_tables import weight_names

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


def names_in(model, table):
    """Where a file keeps each weight of a model.

    Args:
        model: encoder, or another `keras.Model` with layers of the same names.
        table: "google" or "huggingface", whose names of the encoder are meant; or a tuple of
            `WeightName`, "{i}" in a layer and its name standing for the number of a block.

    Returns:
        List of `WeightName` in the order of the table, block after block. Rows of layers or
        variables (such as biases) that the model does not have are left out.

    Raises:
        ValueError: for another format, or if the model is no encoder and there is no table.

    Example:

    >>> from keras_ext.models import BertEncoder
    >>> encoder = BertEncoder(9, num_layers=1, num_heads=1, hidden_dim=4, intermediate_dim=8)
    >>> names_in(encoder, "huggingface")[5]
    WeightName(layer='Transformer-0-MultiHeadSelfAttention', attribute='query_dense.kernel', \
name='bert.encoder.layer.0.attention.self.query.weight', transpose=True)
    """
    return [row for row in _expanded(model, _rows(model, table)) if row.exists(model)]


def absent_names(model, table):
    """The names of the heads, and of the table of segments, that a model was not given.

    Args:
        model: encoder, or another `keras.Model` with layers of the same names.
        table: as for `names_in`.

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
    layers = {layer.name for layer in model.layers}
    rows = (row for row in _rows(model, table) if row.layer in OPTIONAL)
    return tuple(row.name for row in rows if row.layer not in layers)


def _rows(model, table):
    return weight_names(model, table) if isinstance(table, str) else table


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
                    layer, name = (x.replace("{i}", str(i)) for x in (other.layer, other.name))
                    yield other._replace(layer=layer, name=name)
