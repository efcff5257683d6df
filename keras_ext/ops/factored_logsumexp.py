"""The log-sum-exp over all spans of a sequence, from their factors."""

from keras import ops

from keras_ext.ops.labels import mask_labels
from keras_ext.ops.masking import MASKED, mask_scores
from keras_ext.ops.span_scores import split_factors, upper_triangle


def factored_logsumexp(factored, heads, head_size, tril_mask=True, excluded=None):
    """`log(1 + sum over (i, j) of exp(s_h(i, j)))` for every type h, from the factors.

    With E_ij = exp(q_i . k_j - r_i), r_i the largest exponent of row i,

        sum_ij exp(s_h(i, j)) = sum_i exp(a_h(i) + r_i) sum_j E_ij exp(c_h(j))

    One exponential of an (n, n) matrix and one matrix product serve all types. The row maxima
    and the maxima over i and j are taken out of the exponents, so nothing overflows. Where the
    remaining sum of some type is so small that underflow could show in the result (its best
    start and its best end do not make a span, and all its spans score some 60 less), the batch is
    computed again pair by pair, one type at a time. The result is exact for every input.
    The gradient is in closed form; no (b, heads, n, n) tensor exists at any time.

    Args:
        factored: float32 (b, n, 2 * (head_size + heads)).
        heads: int, the number of entity types.
        head_size: int, the width of query and key.
        tril_mask: bool, whether pairs with end < start are excluded.
        excluded: pairs to leave out for all types, or None: a tuple of their cells
            `start * n + end`, int32 (b, k), and of a boolean (b, k), false where there is none.

    Returns:
        float32 (b, heads), at least 0; 0 where there is no pair.

    Example:

    >>> import numpy as np
    >>> zeros = np.zeros((1, 4, 8), "float32")  # 10 pairs, each with score 0
    >>> np.exp(np.array(factored_logsumexp(zeros, heads=2, head_size=2))).round(3).tolist()
    [[11.0, 11.0]]
    """

    def forward_and_gradient(factored):
        query, key, start_bias, end_bias = split_factors(factored, heads, head_size)
        length = ops.shape(factored)[1]
        pairs = ops.einsum("bid,bjd->bij", query, key)
        if excluded is not None:
            flat = mask_labels(ops.reshape(pairs, (-1, length * length)), *excluded)
            pairs = ops.reshape(flat, ops.shape(pairs))
        if tril_mask:
            pairs = mask_scores(pairs, upper_triangle(length))
        # A row without a pair keeps a shift above the mask value: its exponentials are 0.
        row_max = ops.maximum(ops.max(pairs, axis=2, keepdims=True), MASKED / 10)
        exp_pairs = ops.exp(pairs - row_max)
        starts = start_bias + row_max  # (b, n, heads)
        start_max = ops.max(starts, axis=1, keepdims=True)
        end_max = ops.max(end_bias, axis=1, keepdims=True)
        exp_starts = ops.exp(starts - start_max)
        exp_ends = ops.exp(end_bias - end_max)
        row_sums = ops.matmul(exp_pairs, exp_ends)  # (b, n, heads)
        sums = ops.sum(exp_starts * row_sums, axis=1)  # (b, heads)
        shift = (start_max + end_max)[:, 0]
        # What underflows is below 1.2e-38 a pair. It is negligible beside a sum above n^2 1e-31,
        # and beside the 1 in the logarithm wherever exp(shift) n^2 1e-31 is.
        floor = 1e-31 * ops.cast(length * length, "float32")
        exact = ops.all(ops.logical_or(sums > floor, shift < 30.0))
        result = ops.cond(
            exact,
            lambda: ops.softplus(shift + ops.log(ops.maximum(sums, floor))),
            lambda: _typewise_logsumexp(pairs, start_bias, end_bias),
        )

        def gradient(upstream):
            def factored_gradient():
                weights = ops.exp(shift - result) * upstream  # (b, heads)
                weighted_starts = exp_starts * weights[:, None]
                d_pairs = exp_pairs * ops.einsum("bih,bjh->bij", weighted_starts, exp_ends)
                column_sums = ops.einsum("bij,bih->bjh", exp_pairs, weighted_starts)
                return d_pairs, weighted_starts * row_sums, exp_ends * column_sums

            d_pairs, d_starts, d_ends = ops.cond(
                exact,
                factored_gradient,
                lambda: _typewise_gradient(pairs, start_bias, end_bias, result, upstream),
            )
            d_query = ops.matmul(d_pairs, key)
            d_key = ops.einsum("bij,bid->bjd", d_pairs, query)
            return ops.concatenate([d_query, d_key, d_starts, d_ends], axis=-1)

        return result, gradient

    return ops.custom_gradient(forward_and_gradient)(factored)


def _types_first(bias):
    return ops.transpose(bias, (2, 0, 1))  # (heads, b, n)


def _typewise_logsumexp(pairs, start_bias, end_bias):
    """The same sum pair by pair, one type at a time: exact whatever the spread of the scores."""

    def one_type(biases):
        scores = pairs + biases[0][:, :, None] + biases[1][:, None, :]  # (b, n, n)
        return ops.softplus(ops.logsumexp(scores, axis=(1, 2)))

    return ops.transpose(
        ops.map(one_type, (_types_first(start_bias), _types_first(end_bias)))
    )  # (b, heads)


def _typewise_gradient(pairs, start_bias, end_bias, result, upstream):
    """The gradient of `_typewise_logsumexp` for pairs, start biases and end biases."""

    starts, ends = _types_first(start_bias), _types_first(end_bias)
    log_sums, weights = ops.transpose(result), ops.transpose(upstream)  # (heads, b)

    def add_type(index, gradients):
        d_pairs, d_starts, d_ends = gradients
        scores = pairs + starts[index][:, :, None] + ends[index][:, None, :]  # (b, n, n)
        share = ops.exp(scores - log_sums[index][:, None, None]) * weights[index][:, None, None]
        d_starts = ops.slice_update(d_starts, (index, 0, 0), ops.sum(share, axis=2)[None])
        d_ends = ops.slice_update(d_ends, (index, 0, 0), ops.sum(share, axis=1)[None])
        return d_pairs + share, d_starts, d_ends

    d_pairs, d_starts, d_ends = ops.fori_loop(
        0,
        start_bias.shape[-1],
        add_type,
        (ops.zeros_like(pairs), ops.zeros_like(starts), ops.zeros_like(ends)),
    )
    return d_pairs, ops.transpose(d_starts, (1, 2, 0)), ops.transpose(d_ends, (1, 2, 0))
