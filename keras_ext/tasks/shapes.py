"""The shapes that a task gives its model, which compiles or traces anew for some of them."""

import numpy as np

from keras_ext.data import bucket_lengths


def warm_up_lengths(lengths, max_length):
    """The lengths of batches in which texts of some lengths are read.

    Args:
        lengths: list of numbers of tokens, the special ones included; None for all lengths.
        max_length: int, tokens of the longest batch.

    Returns:
        A sorted list of different ints.

    Raises:
        ValueError: for lengths that are not between 1 and max_length.
    """
    buckets = bucket_lengths(max_length)
    if lengths is None:
        return list(buckets)
    lengths = [int(length) for length in lengths]
    if not lengths or not 1 <= min(lengths) <= max(lengths) <= max_length:
        raise ValueError(
            f"Lengths are numbers of tokens from 1 to max_length={max_length}. Received: {lengths=}"
        )
    return sorted({next(size for size in buckets if size >= length) for length in lengths})


def empty_batch(shape):
    """The inputs of an encoder for rows of padding, but for one token each.

    Args:
        shape: tuple of rows and tokens.
    """
    ids, mask = np.zeros(shape, "int32"), np.zeros(shape, bool)
    mask[:, 0] = True
    return {"token_ids": ids, "segment_ids": ids, "padding_mask": mask}
