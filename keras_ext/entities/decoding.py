"""From windows of texts to entities: through the model, its head, and what is read from scores.

They are read in NumPy: how many spans there are is known only when they are found.
"""

import math
from collections.abc import Mapping
from functools import partial
from numbers import Real

import numpy as np
from keras import ops

from keras_ext.data import collate, make_windows, merge_windows, resolve
from keras_ext.entities.entity import Entity
from keras_ext.layers import EfficientGlobalPointer, GlobalPointer
from keras_ext.losses import FactoredGlobalPointerCrossentropy, GlobalPointerCrossentropy
from keras_ext.ops import dense_span_scores
from keras_ext.ops.masking import MASKED
from keras_ext.ops.span_scores import split_factors
from keras_ext.tasks.inputs import Batches

NAME = "span_scores"  # of the head's layer, in every model
BLOCK = 128  # rows of starts looked at together: their scores stay in the processor's cache


def text_windows(tokenizer, texts, max_length, stride):
    """The windows of each text in turn.

    Args:
        tokenizer: `data.Tokenizer`.
        texts: list of strings.
        max_length: int, tokens of a window, the two special ones included.
        stride: int, tokens that consecutive windows share.

    Returns:
        List of `data.Window`; `document` is the index of the text.
    """
    special = tokenizer.start_id, tokenizer.end_id
    return [
        window
        for document, encoding in enumerate(tokenizer.encode_batch(texts))
        for window in make_windows(encoding, document, max_length, stride, *special)
    ]


def window_batches(windows, spans, batch_size, max_length, pad_id, **order):
    """`Batches` of windows.

    Args:
        windows: list of `data.Window`.
        spans: list of int32 (m, 3) arrays, the gold spans of each window; None without labels.
        batch_size: int, windows in a batch.
        max_length: int, tokens of the largest batch.
        pad_id: int, id of the padding token.
        **order: `seed` and `replicas` of `Batches`.
    """
    # One number of spans for all: the shapes of two batches cannot show that it varies as well.
    most = max(map(len, spans or ()), default=0)
    k = max(8, -(-most // 8) * 8)
    lengths = [len(window.ids) for window in windows]
    collated = partial(collate, windows, spans, k=k, pad_id=pad_id)
    return Batches(lengths, batch_size, max_length, collated, **order)


def window_scores(model, windows, made):
    """Yields the indices of windows, their labels, and the model's float32 output for them.

    Labels and scores have one row a window.

    Args:
        model: `keras.Model` of an `EntityRecognizer`.
        windows: list of `data.Window`.
        made: what `Batches.made` of these windows gives, or a list of it.
    """
    for indices, (inputs, labels, _) in made:
        scores = np.asarray(model.predict_on_batch(inputs), "float32")[: len(indices)]
        for index, row in zip(indices, scores, strict=True):
            if not np.isfinite(row).all():
                raise ValueError(
                    "The model gives scores that are not finite; its weights are damaged. "
                    f"Received: text {windows[index].document}"
                )
        yield indices, None if labels is None else labels[: len(indices)], scores


class Reading:
    """How scores become entities: which spans are above their thresholds, and which of them stay.

    Args:
        head: `EfficientHead` or `FullHead`.
        labels: list of label names.
        threshold: as in `EntityRecognizer.predict`.
        policy: likewise.

    Raises:
        ValueError: for an unknown label or policy, or a threshold that is NaN or no number.
    """

    def __init__(self, head, labels, threshold, policy):
        self.head, self.labels = head, labels
        self.thresholds = label_thresholds(threshold, labels)
        self.policy = check_policy(policy)

    def entities(self, texts, windows, scored):
        """The entities of texts.

        Args:
            texts: list of strings.
            windows: list of their `data.Window`s.
            scored: what `window_scores` gives for all of them.

        Returns:
            For each text a list of `Entity`.
        """
        found = [None] * len(windows)
        for indices, _, scores in scored:
            decoded = self.head.decode(scores, self.thresholds)
            for index, spans in zip(indices, decoded, strict=True):
                found[index] = spans
        merged = merge_windows(windows, found, len(texts))
        return [
            [
                Entity(start, end, self.labels[kind], text[start:end], score)
                for (kind, start, end), score in resolve(spans, self.policy).items()
            ]
            for text, spans in zip(texts, merged, strict=True)
        ]


def check_policy(policy):
    """The policy; ValueError for an unknown one."""
    resolve({}, policy)
    return policy


def check_labels(labels):
    """Label names as a list of str; ValueError for anything else."""
    found = [] if labels is None else list(labels)
    if isinstance(labels, str) or not all(isinstance(label, str) for label in found):
        raise ValueError(f"Labels are a list of strings. Received: {labels=}")
    labels = [str(label) for label in found]  # NumPy has strings of its own
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"Labels are given, each once. Received: {labels=}")
    return labels


def check_threshold(threshold, labels):
    """The threshold in numbers of Python, as JSON has them; ValueError as `label_thresholds`."""
    label_thresholds(threshold, labels)
    if isinstance(threshold, Mapping):
        return {label: float(number) for label, number in threshold.items()}
    return float(threshold)


def label_thresholds(threshold, labels):
    """One threshold for each label.

    Args:
        threshold: float for all, or dict from label to float, 0 for labels not in it.
        labels: list of label names.

    Returns:
        float32 array (labels,).

    Raises:
        ValueError: for a label that is not among `labels`, or what is NaN or no number.
    """
    given = threshold if isinstance(threshold, Mapping) else dict.fromkeys(labels, threshold)
    unknown = sorted(set(given) - set(labels), key=str)
    if unknown:
        raise ValueError(f"Thresholds name labels among {labels}. Received: unknown {unknown}")
    for number in given.values():
        if isinstance(number, bool) or not isinstance(number, Real) or math.isnan(number):
            raise ValueError(
                "A threshold is a number, or a dict from label to number, or None for the one that "
                f"the recogniser keeps. Received: {threshold=}"
            )
    return np.array([given.get(label, 0.0) for label in labels], "float32")


class EfficientHead:
    """`EfficientGlobalPointer` by its factors."""

    def __init__(self, types, head_size):
        self.types, self.head_size = types, head_size

    def layer(self, dtype):
        """The layer, with factored output."""
        return EfficientGlobalPointer(
            self.types, self.head_size, factored=True, dtype=dtype, name=NAME
        )

    def loss(self):
        """The loss of the layer's output."""
        return FactoredGlobalPointerCrossentropy(self.types, self.head_size)

    def decode(self, scores, threshold):
        """Spans and their scores for each row of the layer's output."""
        return decode_factored_spans(scores, self.types, self.head_size, threshold)

    def dense(self, scores):
        """The scores of all pairs, (b, types, n, n), from the layer's output."""
        return ops.convert_to_numpy(dense_span_scores(scores, self.types, self.head_size))

    def keep(self, row, starts, ends):
        """What `read` needs of a row of the layer's output for these spans: the few factors."""
        return row

    def read(self, kept, starts, ends):
        """The scores (m, types) of the spans for which this was kept, those of `decode`."""
        return score_factored_spans(kept, self.types, self.head_size, starts, ends)


class FullHead:
    """`GlobalPointer` with a query and key for each label."""

    def __init__(self, types, head_size):
        self.types, self.head_size = types, head_size

    def layer(self, dtype):
        """The layer."""
        return GlobalPointer(self.types, self.head_size, dtype=dtype, name=NAME)

    def loss(self):
        """The loss of the layer's output."""
        return GlobalPointerCrossentropy()

    def decode(self, scores, threshold):
        """Spans and their scores for each row of the layer's output."""
        return decode_spans(scores, threshold)

    def dense(self, scores):
        """The scores of all pairs, (b, types, n, n): the layer's output itself."""
        return np.asarray(scores)

    def keep(self, row, starts, ends):
        """What `read` needs of a row of the layer's output for these spans: their scores."""
        return row[:, starts, ends].T

    def read(self, kept, starts, ends):
        """The scores (m, types) of the spans for which this was kept, those of `decode`."""
        return kept


HEADS = {"efficient": EfficientHead, "full": FullHead}


def check_head(head, model):
    """Raises ValueError where the last layer of a model is another head than this one.

    Args:
        head: `EfficientHead` or `FullHead`.
        model: `keras.Model` of an `EntityRecognizer`.
    """
    expected, layer = head.layer("float32"), model.get_layer(NAME)
    found, wanted = ((x.heads, x.head_size, type(x).__name__) for x in (layer, expected))
    if found != wanted:
        raise ValueError(
            "The model gives scores for {} labels by head_size={} in a {}. Expected one for "
            "{} labels, head_size={}, in a {}, as the labels and the settings say. "
            f"Received: labels={wanted[0]}, head_size={wanted[1]}".format(*found, *wanted)
        )


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
