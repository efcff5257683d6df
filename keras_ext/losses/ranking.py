import keras
from keras import ops

from keras_ext.ops.labels import lossless_tensor

FARTHEST = 1e38
"""Scores beyond it, once scaled, count as it; twice as much is still a finite float32."""


def ranking_logsumexp(y, s, temperature=0.05, pair_weight=None):
    """How badly scores rank what labels rank: a loss over all pairs whose labels differ.

        log(1 + sum over y_a < y_b of w_a w_b exp((s_a - s_b) / T))

    Only the order of the labels counts, not their size: graded, binary and ordered classes (such
    as contradiction 0, neutral 1, entailment 2) are all labels. Equal labels make no pair. Where
    all are equal, value and gradient are exactly 0.

    The sum is not taken pair by pair. In the order of the labels, each row needs the log-sum-exp of
    all rows before its label, and of all after it: two running sums, in log2(B) steps, of O(B) each.
    A step adds two sums that have their largest exponent taken out, so nothing overflows,
    underflows or cancels, whatever the scores. The gradient, with p_ab the share of a pair in the
    sum and its 1, comes from the same two sums:

        dL/ds_a = (sum over y_b > y_a of p_ab - sum over y_b < y_a of p_ba) / T

    O(B log B) time and O(B) memory; the length of the batch may be unknown.

    Args:
        y: labels, (B,) of any real or boolean dtype. A row with a NaN label is absent.
        s: scores, (B,) of a floating point dtype. Computed in float32. Scores beyond
            1e38 min(T, 1), and infinite ones, count as that, so that the loss is finite.
        temperature: float above 0, T. Defaults to 0.05.
        pair_weight: weights w of the rows, (B,), or None for 1. A row of weight 0 is absent, as if
            it were not in the batch. A weight below 0 has no meaning; it makes the loss NaN.

    Returns:
        float32 scalar, at least 0. NaN if the score or the weight of a row is NaN, unless the row
        is absent. The gradient goes to `s` alone, not to labels, weights or temperature, and is itself
        not differentiable.

    Raises:
        ValueError: if the arguments are not of one shape (B,), or the temperature is not above 0.

    Example:

    >>> import numpy as np
    >>> scores = np.array([0.9, 0.1, 0.5])
    >>> print(f"{float(ranking_logsumexp(np.array([2, 0, 1]), scores)):.4f}")  # ranked right
    0.0007
    >>> print(f"{float(ranking_logsumexp(np.array([0, 2, 1]), scores)):.4f}")  # the other way round
    16.0007

    Source: Jianlin Su, CoSENT, 2022, https://kexue.fm/archives/8847. The sum in O(B log B) is ours.
    """
    labels, scores = lossless_tensor(y), ops.convert_to_tensor(s)
    weights = ops.ones_like(scores) if pair_weight is None else ops.convert_to_tensor(pair_weight)
    _check(labels, scores, weights)
    check_temperature(temperature)
    scale = 1.0 / temperature
    weights, present = ops.cast(weights, "float32"), present_rows(labels, weights)
    labels = ops.where(present, labels, ops.zeros_like(labels))
    weights = ops.where(present, weights, 0.0)
    labels, weights = ops.stop_gradient(labels), ops.stop_gradient(weights)

    def forward_and_gradient(scores):
        bad = ops.logical_or(ops.isnan(scores), ops.logical_not(weights >= 0.0))
        bad = ops.any(ops.logical_and(present, bad))
        loss, slopes = _loss_and_slopes(labels, scores, weights, present, scale)
        loss = ops.where(bad, float("nan"), loss)
        slopes = ops.where(bad, float("nan"), slopes)

        def gradient(upstream):
            return upstream * slopes

        return loss, gradient

    return ops.custom_gradient(forward_and_gradient)(ops.cast(scores, "float32"))


def _check(labels, scores, weights):
    sizes = {x.shape[0] for x in (labels, scores, weights) if len(x.shape) == 1} - {None}
    if any(len(x.shape) != 1 for x in (labels, scores, weights)) or len(sizes) > 1:
        raise ValueError(
            "Labels, scores and weights are one number for each row, (batch,). Received: "
            f"y.shape={tuple(labels.shape)}, s.shape={tuple(scores.shape)}, "
            f"pair_weight.shape={tuple(weights.shape)}"
        )


def check_temperature(temperature):
    """Raises unless a temperature is above 0."""
    if not temperature > 0:
        raise ValueError(f"Expected a temperature above 0. Received: {temperature=}")


def present_rows(labels, weights):
    """True for the rows that make pairs. NaN is a weight that shows, and a label that does not."""
    present = weights != 0
    if "float" in keras.backend.standardize_dtype(labels.dtype):
        present = ops.logical_and(present, ops.logical_not(ops.isnan(labels)))
    return present


def _loss_and_slopes(labels, scores, weights, present, scale):
    """The loss, and its derivative by each score."""
    size = ops.shape(scores)[0]
    order = ops.argsort(labels)
    labels, weights, present = (ops.take(x, order) for x in (labels, weights, present))
    farthest = FARTHEST / max(scale, 1.0)
    scores = ops.take(ops.clip(scores, -farthest, farthest), order)
    heaviest = ops.max(weights)
    heaviest = ops.where(heaviest > 0.0, heaviest, 1.0)
    # Two rows: the scores in order, for what is below a label; and their negatives backwards, so
    # that what is above a label comes before it, too, and one loop serves both.
    exponents = ops.where(present, ops.stack([scores, -scores]), -FARTHEST)  # (2, B)
    exponents = _both_ways(exponents[0], exponents[1])
    factors = _both_ways(weights, weights) / heaviest  # else the product of two might overflow
    tops, sums = _running_sums(_both_ways(labels, labels), exponents, factors, scale)
    # All pairs of a row: sums exp(scale tops), with its own weight and its own score.
    gaps, sums = tops - exponents, sums * factors
    paired = sums > 0.0
    top = ops.max(ops.where(paired, gaps, -FARTHEST), axis=1, keepdims=True)
    terms = sums * ops.exp(scale * ops.where(paired, gaps - top, 0.0))
    total = ops.sum(terms, axis=1, keepdims=True)  # (2, 1), twice the same
    total = ops.where(total > 0.0, total, 1.0)
    exponent = scale * top + ops.log(total) + 2.0 * ops.log(heaviest)
    shares = terms / total * ops.sigmoid(exponent)
    slopes = scale * (ops.flip(shares[1], 0) - shares[0])
    return ops.softplus(exponent[0, 0]), ops.scatter(order[:, None], slopes, (size,))


def _both_ways(forward, backward):
    return ops.stack([forward, ops.flip(backward, 0)])


def _running_sums(labels, exponents, factors, scale):
    """Of each element, `sum of factors exp(scale exponents)` over those before its label.

    Args:
        labels: (2, B), equal ones adjacent.
        exponents: float32 (2, B), finite.
        factors: float32 (2, B), at least 0.
        scale: float.

    Returns:
        tops: float32 (2, B), the largest exponent of a sum, -1e38 where it is empty.
        sums: float32 (2, B), so that the sum is `sums * exp(scale * tops)`.
    """
    size = ops.shape(exponents)[1]
    changes = ops.pad(labels[:, 1:] != labels[:, :-1], [[0, 0], [1, 0]])
    first = ops.where(changes, ops.arange(size, dtype="int32"), 0)
    lowest, zeros = ops.full_like(exponents, -FARTHEST), ops.zeros_like(exponents)
    nowhere = ops.zeros_like(first)

    def double(step, tops, sums, first):
        """From sums over `step` elements to sums over twice as many."""

        def shifted(x, before):
            return ops.slice(ops.concatenate([before, x], axis=1), (0, size - step), (2, size))

        other_tops = shifted(tops, lowest)
        larger = ops.maximum(tops, other_tops)
        here = sums * ops.exp(scale * (tops - larger))
        there = shifted(sums, zeros) * ops.exp(scale * (other_tops - larger))
        return 2 * step, larger, here + there, ops.maximum(first, shifted(first, nowhere))

    one = ops.convert_to_tensor(1, "int32")
    loop = (one, exponents, factors, first)
    _, tops, sums, first = ops.while_loop(lambda step, *_: step < size, double, loop)
    # `first` is now where the label of an element begins: one before it ends the sum.
    places = first + ops.convert_to_tensor([[0], [1]]) * (size + 1)

    def before(x, start):
        padded = ops.pad(x, [[0, 0], [1, 0]], constant_values=start)
        return ops.take(ops.reshape(padded, (-1,)), places)

    return before(tops, -FARTHEST), before(sums, 0.0)
