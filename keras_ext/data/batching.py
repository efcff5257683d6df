"""Windows -> batches of a few static shapes."""

import math

import numpy as np


def bucket_lengths(max_length, smallest=16, factor=1.5):
    """The lengths to which windows are padded: each compiles once.

    From `max_length` downwards, each `factor` times shorter, in multiples of 8.

    Args:
        max_length: Largest length, kept as it is.
        smallest: No length is shorter, except `max_length` itself. Defaults to 16.
        factor: Ratio of neighbouring lengths, above 1. Larger means fewer compilations and more
            padding. Defaults to 1.5.

    Returns:
        Ascending list of integers that ends with `max_length`.

    Raises:
        ValueError: If `factor` is not above 1 or a length is not positive.

    Example:

    >>> bucket_lengths(128)
    [16, 32, 48, 80, 128]
    """
    if not factor > 1 or smallest < 1 or max_length < 1:
        raise ValueError(
            "lengths must be positive and factor above 1. Received: "
            f"max_length={max_length}, smallest={smallest}, factor={factor}"
        )
    lengths = [max_length]
    while lengths[-1] > smallest:
        shorter = int(lengths[-1] / factor) // 8 * 8
        lengths.append(max(shorter, smallest))
    return lengths[::-1]


def make_batches(lengths, span_counts, batch_size, buckets, seed=None):
    """Group windows of similar length.

    Full batches first; what is left in a bucket moves up into the next larger bucket in use, so
    at most one batch, of the largest bucket, is short. The shapes do not depend on `seed`.

    Args:
        lengths: Number of tokens of each window, special ones included.
        span_counts: Number of spans of each window; zeros without labels.
        batch_size: Number of windows in a batch.
        buckets: Ascending list of lengths, see `bucket_lengths`.
        seed: Integer that fixes which windows meet and the order of batches. Defaults to `None`:
            file order within buckets, short buckets first.

    Returns:
        List of `(length, k, indices)`: bucket length, number of spans to pad to (a multiple of 8),
        and an int64 array of at most `batch_size` indices of windows.

    Raises:
        ValueError: If a window fits no bucket or an argument is out of range.

    Example:

    >>> make_batches([5, 9, 30, 6], [0, 1, 9, 2], batch_size=2, buckets=[16, 32])
    [(16, 8, array([0, 1])), (32, 16, array([3, 2]))]
    """
    lengths, span_counts = np.asarray(lengths, "int64"), np.asarray(span_counts, "int64")
    buckets = list(buckets)
    if batch_size < 1 or len(lengths) != len(span_counts) or buckets != sorted(set(buckets)):
        raise ValueError(
            "expected batch_size > 0, one span count a window and ascending buckets. Received: "
            f"batch_size={batch_size}, len(lengths)={len(lengths)}, "
            f"len(span_counts)={len(span_counts)}, buckets={buckets}"
        )
    if len(lengths) and lengths.max() > buckets[-1]:
        raise ValueError(
            f"a window fits no bucket. Expected lengths up to {buckets[-1]}. Received: "
            f"lengths[{lengths.argmax()}]={lengths.max()}"
        )
    random = None if seed is None else np.random.default_rng(seed)
    home = np.searchsorted(buckets, lengths)
    batches, left = [], np.array([], "int64")
    for bucket in range(len(buckets)):
        members = np.flatnonzero(home == bucket)
        if not len(members):
            continue
        members = np.concatenate([left, members])
        if random is not None:
            random.shuffle(members)
        largest_in_use = bucket == home.max()
        kept = len(members) if largest_in_use else len(members) // batch_size * batch_size
        # Shorter windows may be moved up here, and which ones depends on the seed: reckon with all.
        k = max(8, math.ceil(span_counts[home <= bucket].max() / 8) * 8)
        for first in range(0, kept, batch_size):
            batches.append((buckets[bucket], k, members[first : min(first + batch_size, kept)]))
        left = members[kept:]
    if random is not None:
        random.shuffle(batches)
    return batches


def collate(windows, spans, indices, batch_size, length, k, pad_id):
    """Arrays of one batch. A short batch is filled up with masked rows of weight 0.

    Args:
        windows: List of `Window`.
        spans: For each window an integer array (m, 3) of `type, start, end`, or `None`.
        indices: Indices of the windows in this batch.
        batch_size: Number of rows b.
        length: Number of columns n.
        k: Number of spans a row is padded to.
        pad_id: Id of the padding token.

    Returns:
        `(inputs, labels, sample_weight)`: a dictionary with `token_ids` (b, n) int32, `segment_ids`
        (b, n) int32 zeros and `padding_mask` (b, n) bool, true at tokens; labels (b, k, 3) int32
        padded with -1, or `None` without spans; weights (b,) float32.

    Raises:
        ValueError: If something does not fit into these shapes.

    Example:

    >>> from keras_ext.data import Window
    >>> window = Window(0, 0, np.array([2, 7, 3]), np.array([[-1, -1], [0, 1], [-1, -1]]))
    >>> inputs, labels, weight = collate([window], None, [0], 2, length=4, k=8, pad_id=0)
    >>> inputs["token_ids"].tolist(), weight.tolist()
    ([[2, 7, 3, 0], [0, 0, 0, 0]], [1.0, 0.0])
    """
    if len(indices) > batch_size:
        raise ValueError(
            f"too many windows for a batch of {batch_size}. Received: len(indices)={len(indices)}"
        )
    for index in indices:
        if len(windows[index].ids) > length:
            raise ValueError(
                f"window {index} is too long. Expected at most {length} tokens. Received: "
                f"{len(windows[index].ids)}"
            )
    inputs = pad_rows([windows[index].ids for index in indices], batch_size, length, pad_id)
    labels = None if spans is None else np.full((batch_size, k, 3), -1, "int32")
    for row, index in enumerate(indices if labels is not None else []):
        if len(spans[index]) > k:
            raise ValueError(
                f"window {index} has too many spans. Expected at most {k}. Received: "
                f"{len(spans[index])}"
            )
        labels[row, : len(spans[index])] = spans[index]
    sample_weight = (np.arange(batch_size) < len(indices)).astype("float32")
    return inputs, labels, sample_weight


def pad_rows(rows, count, length, pad_id):
    """Token ids of different lengths as the inputs of an encoder.

    Args:
        rows: List of integer arrays, at most `count`, none longer than `length`.
        count: Number of rows b; those that are left over hold padding alone.
        length: Number of columns n.
        pad_id: Id of the padding token.

    Returns:
        A dictionary with `token_ids` (b, n) int32, `segment_ids` (b, n) int32 zeros and
        `padding_mask` (b, n) bool, true at tokens.

    Raises:
        ValueError: If the rows do not fit.

    Example:

    >>> pad_rows([[2, 7, 3]], 2, 4, pad_id=0)["token_ids"].tolist()
    [[2, 7, 3, 0], [0, 0, 0, 0]]
    """
    lengths = np.zeros(count, "int64")
    if len(rows) > count or max(map(len, rows), default=0) > length:
        raise ValueError(
            f"Expected at most {count} rows of at most {length} tokens. Received: {len(rows)} rows "
            f"of up to {max(map(len, rows), default=0)} tokens"
        )
    lengths[: len(rows)] = [len(row) for row in rows]
    padding_mask = np.arange(length) < lengths[:, None]
    token_ids = np.full((count, length), pad_id, "int32")
    if lengths.any():
        token_ids[padding_mask] = np.concatenate(rows)
    segment_ids = np.zeros((count, length), "int32")
    return {"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": padding_mask}
