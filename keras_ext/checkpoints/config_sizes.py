"""Whether a file can hold the sizes that a config claims, before anything is built."""

import inspect
import math
from numbers import Real

from keras_ext.checkpoints.assign import matches, misfit
from keras_ext.checkpoints.name_tables import weight_names
from keras_ext.models.blocks import check_heads

# Arguments of layers and encoders of which each unit has a weight of its own.
SIZES = (
    *("embedding_dim", "filters", "head_size", "heads", "hidden_dim", "input_dim", "key_size"),
    *("intermediate_dim", "max_sequence_length", "num_heads", "num_segments", "output_dim"),
    *("units", "vocabulary_size"),
)
MOST_LAYERS = 1000  # that a number in a config may ask for
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
    for row in weight_names(encoder, column):
        expected = _shape(row, sizes)
        if expected is None:
            continue
        if row.transpose:
            expected = expected[::-1]
        blocks = range(sizes["num_layers"]) if "{i}" in row.name else range(1)
        names = [named(row.name.replace("{i}", str(i))) for i in blocks]
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
