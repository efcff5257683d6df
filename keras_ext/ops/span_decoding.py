"""From scores to spans, in NumPy: how many spans there are is known only when they are found."""

import numpy as np

from keras_ext.ops.masking import MASKED
from keras_ext.ops.span_scores import split_factors


def decode_spans(scores, threshold=0.0):
    """The spans that score above the threshold, from the scores of all pairs.

    Args:
        scores: array (b, heads, n, n), axis 2 the start, axis 3 the end; masked pairs -1e30.
        threshold: float, or a sequence of one float for each type.

    Returns:
        A list of one pair for each sample: spans (m, 3) int32 `type, start, end` with inclusive
        end, sorted by start, end, type; and their scores (m,) float32.

    Example:

    >>> scores = np.full((1, 2, 3, 3), -1.0, "float32")
    >>> scores[0, 1, 0, 2] = 4.0
    >>> spans, values = decode_spans(scores)[0]
    >>> spans.tolist(), values.tolist()
    ([[1, 0, 2]], [4.0])
    """
    scores = np.asarray(scores, "float32")
    if scores.ndim != 4 or scores.shape[2] != scores.shape[3]:
        raise ValueError(
            "Span scores have the shape (batch, heads, length, length). "
            f"Received: shape={scores.shape}"
        )
    threshold = _thresholds(threshold, scores.shape[1])
    decoded = []
    for sample in scores:
        types, starts, ends = np.nonzero(sample > threshold[:, None, None])
        decoded.append(_sorted_spans(types, starts, ends, sample[types, starts, ends]))
    return decoded


def decode_factored_spans(factored, heads, head_size, threshold=0.0, tril_mask=True):
    """The spans that score above the threshold, from the factors.

    A pair can be an entity of any type only if

        q_i . k_j + max_h a_h(i) + max_h c_h(j) > min_h threshold_h

    so this one (n, n) test leaves few pairs to look at, however many types there are. Exact: the
    bound is added up in the order of the scores, and rounding is monotone.

    Args:
        factored: array (b, n, 2 * (head_size + heads)), as `ops.span_scores` describes it.
        heads: int, the number of entity types.
        head_size: int, the width of query and key.
        threshold: float, or a sequence of one float for each type.
        tril_mask: bool, whether pairs with end < start are excluded.

    Returns:
        As `decode_spans`.

    Example:

    >>> factored = np.zeros((1, 3, 4), "float32")  # one type, head_size 1
    >>> factored[0, :, 2:] = -1.0  # both biases
    >>> factored[0, 1, 0] = factored[0, 2, 1] = 3.0  # the query of token 1, the key of token 2
    >>> spans, values = decode_factored_spans(factored, heads=1, head_size=1)[0]
    >>> spans.tolist(), values.tolist()
    ([[0, 1, 2]], [7.0])
    """
    factored = np.asarray(factored, "float32")
    threshold = _thresholds(threshold, heads)
    decoded = []
    for query, key, start_bias, end_bias in zip(
        *split_factors(factored, heads, head_size), strict=True
    ):
        pairs = query @ key.T
        bound = pairs + start_bias.max(1)[:, None]
        bound += end_bias.max(1)
        starts, ends = np.divmod(np.flatnonzero(bound > threshold.min()), len(key))
        if tril_mask:
            keep = starts <= ends
            starts, ends = starts[keep], ends[keep]
        scores = pairs[starts, ends][:, None] + start_bias[starts] + end_bias[ends]  # (m, heads)
        found, types = np.nonzero(scores > threshold)
        decoded.append(_sorted_spans(types, starts[found], ends[found], scores[found, types]))
    return decoded


def _thresholds(threshold, heads):
    # A threshold of -inf lets every pair through, but no masked one.
    thresholds = np.maximum(np.asarray(threshold, "float32"), np.float32(MASKED / 10))
    if thresholds.ndim == 0:
        return np.full(heads, thresholds)
    if thresholds.shape != (heads,):
        raise ValueError(
            f"Expected one threshold, or one for each of the {heads} types. Received: {threshold=}"
        )
    return thresholds


def _sorted_spans(types, starts, ends, scores):
    order = np.lexsort((types, ends, starts))
    return np.stack([types, starts, ends], axis=1).astype("int32")[order], scores[order]
