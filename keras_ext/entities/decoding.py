"""From scores to spans, in NumPy: how many spans there are is known only when they are found."""

import numpy as np

from keras_ext.ops.masking import MASKED
from keras_ext.ops.span_scores import split_factors

BLOCK = 128  # rows of starts looked at together: their scores stay in the processor's cache


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
    for sample in zip(*split_factors(factored, heads, head_size), strict=True):
        starts, ends, pairs = _candidates(*sample, threshold.min(), tril_mask)
        _, _, start_bias, end_bias = sample
        scores = pairs[:, None] + start_bias[starts] + end_bias[ends]  # (m, heads)
        found, types = np.divmod(np.flatnonzero(scores > threshold), heads)  # nonzero is slower
        decoded.append(_sorted_spans(types, starts[found], ends[found], scores[found, types]))
    return decoded


def score_factored_spans(factored, heads, head_size, starts, ends):
    """The scores of some spans of one sample, bit for bit those of `decode_factored_spans`.

    Args:
        factored: float32 array (n, 2 * (head_size + heads)), a row of what that function takes.
        heads: int, the number of entity types.
        head_size: int, the width of query and key.
        starts: int array (m,), the first token of each span.
        ends: int array (m,), the last one, not before the first.

    Returns:
        float32 array (m, heads).

    Example:

    >>> factored = np.arange(8, dtype="float32").reshape(2, 4)  # one type, head_size 1
    >>> score_factored_spans(factored, 1, 1, starts=np.array([0, 1]), ends=np.array([1, 1]))
    array([[ 9.],
           [33.]], dtype=float32)
    """
    factors = split_factors(factored[None], heads, head_size)
    query, key, start_bias, end_bias = (factor[0] for factor in factors)
    products = np.empty(len(starts), "float32")
    for top, left, pairs in _products(query, key, tril_mask=True):
        rows = (top <= starts) & (starts < top + BLOCK)
        products[rows] = pairs[starts[rows] - top, ends[rows] - left]
    return products[:, None] + start_bias[starts] + end_bias[ends]


def _candidates(query, key, start_bias, end_bias, threshold, tril_mask):
    """The pairs that can be an entity of some type: their starts, ends and products q . k."""
    # NumPy finds maxima over the first axis of a contiguous array much faster.
    start_bound = np.ascontiguousarray(start_bias.T).max(0)[:, None]
    end_bound = np.ascontiguousarray(end_bias.T).max(0)
    starts, ends, products = [], [], []
    for top, left, pairs in _products(query, key, tril_mask):
        bound = pairs + start_bound[top : top + BLOCK]
        bound += end_bound[left:]
        cells = np.flatnonzero(bound > threshold)
        row, column = np.divmod(cells, pairs.shape[1])
        starts.append(row + top)
        ends.append(column + left)
        products.append(pairs.ravel()[cells])
    starts, ends, products = map(np.concatenate, (starts, ends, products))
    if tril_mask:
        keep = starts <= ends
        starts, ends, products = starts[keep], ends[keep], products[keep]
    return starts, ends, products


def _products(query, key, tril_mask):
    """Yields the products q . k of a block of rows, and the first row and column of the block."""
    for top in range(0, max(len(query), 1), BLOCK):
        left = top if tril_mask else 0
        yield top, left, query[top : top + BLOCK] @ key[left:].T


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
