"""Whether a file has tensors of the sizes that a config claims, before anything is built."""

import inspect

from keras_ext.checkpoints.checkpoint import matches, misfit
from keras_ext.checkpoints.name_lookup import is_transposed
from keras_ext.checkpoints.names import weight_names
from keras_ext.models.blocks import check_heads

ATTENTION, UNIT = "-MultiHeadSelfAttention", "-GatedAttentionUnit"


def check_sizes(encoder, arguments, shapes, column, named=str, allow_missing=()):
    """Raises ValueError where an encoder would have other weights than a file.

    What makes an encoder large is compared: its tables and the first matrices of its blocks.

    Args:
        encoder: class of an encoder.
        arguments: dict, its arguments. A `vocabulary_size` of None fits any file.
        shapes: dict from the names of the file to shapes.
        column: "google" or "huggingface", whose names these are.
        named: function from a name of the table to that in the file.
        allow_missing: tuple of `fnmatch` patterns of names that may lack.
    """
    signature = inspect.signature(encoder.__init__).parameters
    sizes = {name: p.default for name, p in signature.items()} | arguments
    if "num_heads" in sizes:
        check_heads(sizes["hidden_dim"], sizes["num_heads"], sizes.get("head_size"))
    faults = []
    for row in weight_names(encoder):
        expected, name = _shape(row, sizes), getattr(row, column)
        if expected is None or name is None:
            continue
        if is_transposed(row, column):
            expected = expected[::-1]
        blocks = range(sizes["num_layers"]) if "{i}" in name else range(1)
        names = [named(name.replace("{i}", str(i))) for i in blocks]
        missing = [n for n in names if n not in shapes and not matches(n, allow_missing)]
        more = f", and {len(missing) - 1} more like it" if len(missing) > 1 else ""
        faults += [f"missing: {name}{more}" for name in missing[:1]]
        for name in names:
            found = tuple(shapes.get(name, expected))
            same = zip(expected, found, strict=False)
            if len(found) != len(expected) or any(n not in (None, there) for n, there in same):
                faults.append(f"shape: {name}, expected {expected}, found {found}")
    if faults:
        raise misfit(faults, encoder.__name__)


def _shape(row, sizes):
    """The shape of a weight, where it is one of those that are compared and the encoder has it."""
    hidden, inner = sizes["hidden_dim"], sizes["intermediate_dim"]
    width = sizes.get("embedding_dim") or hidden
    if row.attribute == "embeddings":
        rows = {
            "Embedding-Token": sizes["vocabulary_size"],
            "Embedding-Segment": sizes["num_segments"] or 0,
            "Embedding-Position": sizes.get("max_sequence_length"),
        }.get(row.layer, 0)
        return None if rows == 0 else (rows, width)
    if row.attribute == "intermediate_dense.kernel":
        return hidden, inner
    if row.layer.endswith(ATTENTION) and row.attribute.endswith("kernel"):
        head = sizes.get("head_size")
        part = row.attribute.partition("_")[0]
        head = (sizes.get("key_size") or head) if part in ("query", "key") else head
        # Without sizes of their own they share the width, which the encoder checks.
        channels = sizes["num_heads"] * head if head else hidden
        return (channels, hidden) if part == "output" else (hidden, channels)
    if row.layer.endswith(UNIT) and row.attribute == "input_dense.kernel":
        return hidden, 2 * inner + sizes["key_size"]
    return None
