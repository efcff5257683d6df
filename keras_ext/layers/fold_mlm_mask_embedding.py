"""What a masked language model leaves in its table when the masks are gone."""

import keras
import numpy as np
from keras import ops

from keras_ext.ops.settings import number, whole


def fold_mlm_mask_embedding(table, mask_id, select=0.15, split=(0.8, 0.1, 0.1), exclude_ids=(0,)):
    """Puts the mean of what a masked language model saw in place of a token into its embedding.

    To mask a token is dropout of its embedding: with probability q = `select` the network saw

        E[mask] with probability a,  E[i] with b,  a random row with c,  (a, b, c) = `split`

    where E[i] stood. As dropout is turned off by the mean, so is this one:

        E[i] <- (1 - q + q b) E[i] + q a E[mask] + q c mean(E)

    with the mean over the ids that are not excluded; BERT's numbers give 0.865 E[i] + 0.12 E[mask] +
    0.015 mean(E). Do it once, after pretraining and before fine-tuning without masks.

    Excluded rows were never masked, and stay as they are. (The post's own code averages the whole
    table, with padding and unused rows: `exclude_ids=()`.)

    No better accuracy is claimed: the post found no significant difference on CLUE, as a norm of the
    embeddings undoes most of it. A head that is tied to the table (`with_mlm`) gets other scores by
    it: where masked tokens are to be guessed later on, keep a copy of the table.

    Args:
        table: (vocabulary_size, d) array; or a built `keras.layers.Embedding` (an encoder's is
            `encoder.get_layer("Embedding-Token")`), whose table is changed in place.
        mask_id: int, the id of the mask.
        select: float in [0, 1], q. Defaults to 0.15.
        split: three probabilities that sum to 1. Defaults to (0.8, 0.1, 0.1).
        exclude_ids: ids that were never selected, nor random replacements. Defaults to (0,).

    Returns:
        A new NumPy array of the dtype of `table`, computed in at least float32; or the layer.

    Raises:
        ValueError: for a layer without a table of floats, ids out of the table, or a `select` or
            `split` that are no probabilities.

    Example:

    >>> table = np.array([[0.0], [4.0], [8.0]], "float32")
    >>> fold_mlm_mask_embedding(table, mask_id=2, select=0.5, split=(1, 0, 0)).tolist()
    [[0.0], [6.0], [8.0]]

    Source: Jianlin Su, 2021, https://kexue.fm/archives/8770
    """
    if isinstance(table, keras.layers.Layer):
        variable = _variable(table)
        arguments = (mask_id, select, split, exclude_ids)
        variable.assign(fold_mlm_mask_embedding(variable.value, *arguments))
        return table
    table = table if isinstance(table, np.ndarray) else ops.convert_to_numpy(table)
    select, (masked, kept, other) = number("select", select), checked_split(split)
    if not 0 <= select <= 1:
        raise ValueError(f"Expected select in [0, 1]. Received: {select=}")
    wide = table.astype(np.promote_types(table.dtype, "float32"))
    if wide.ndim != 2 or table.dtype.kind in "iub":
        raise ValueError(
            "Expected a table of floats (vocabulary_size, d). "
            f"Received: shape {table.shape}, {table.dtype}"
        )
    ids = [whole("id", i, least=0) for i in (mask_id, *exclude_ids)]
    if max(ids) >= len(wide) or len(set(ids[1:])) == len(wide):
        raise ValueError(
            f"Expected ids below {len(wide)}, and not all of them excluded. "
            f"Received: {mask_id=}, {exclude_ids=}"
        )
    ordinary = np.ones(len(wide), bool)
    ordinary[ids[1:]] = False
    mean = wide[ordinary].mean(axis=0)
    folded = (1 - select + select * kept) * wide
    folded += select * masked * wide[mask_id] + select * other * mean
    return np.where(ordinary[:, None], folded, wide).astype(table.dtype)


def _variable(layer):
    """The table of an embedding layer.

    Raises:
        ValueError: for a layer that has none which could be assigned.
    """
    table = layer.embeddings if isinstance(layer, keras.layers.Embedding) and layer.built else None
    # With LoRA it is a sum, and quantised there are integers.
    if not hasattr(table, "assign") or "float" not in keras.backend.standardize_dtype(table.dtype):
        raise ValueError(
            "Expected a built keras.layers.Embedding with a table of floats, without LoRA; an "
            f'encoder\'s is encoder.get_layer("Embedding-Token"). Received: {layer!r}'
        )
    return table


def checked_split(split):
    """The probabilities of the mask, of the token itself and of a random one.

    Args:
        split: three numbers.

    Returns:
        Tuple of three floats.

    Raises:
        ValueError: if they are no probabilities.
    """
    parts = tuple(number("split", part) for part in split)
    if len(parts) != 3 or min(parts) < 0 or abs(sum(parts) - 1) > 1e-6:
        raise ValueError(f"Expected three probabilities that sum to 1. Received: {split=}")
    return parts
