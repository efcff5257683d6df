"""One step of attention with quantised keys: a block of queries, the block before, and a cache."""

from keras import ops

from keras_ext.ops.masking import MASKED, mask_scores
from keras_ext.ops.products_with import products_with


def empty_state(batch, heads, codes, block_length, key_size, value_size, dtype):
    """What is known before the first token: nothing.

    Returns:
        Dict of tensors. Of the last L = `block_length` tokens: `key` (b, h, L, key_size), quantised,
        `code` (b, h, L) int32, `value` (b, h, L, value_size), `visible` (b, L) bool and `document`
        (b, L) int32. Of all tokens before them in the document `cached` (b,) int32: `count`
        (b, h, codes), how many have each code, and `mean` (b, h, codes, value_size) of their values.
    """
    recent = (batch, heads, block_length)
    return {
        "key": ops.zeros((*recent, key_size), dtype),
        "code": ops.zeros(recent, "int32"),
        "value": ops.zeros((*recent, value_size), dtype),
        "visible": ops.zeros((batch, block_length), "bool"),
        "document": ops.zeros((batch, block_length), "int32"),
        "count": ops.zeros((batch, heads, codes), dtype),
        "mean": ops.zeros((batch, heads, codes, value_size), dtype),
        "cached": ops.zeros((batch,), "int32"),
    }


def attend_block(state, block, shared, itself=True, grad_through_cache=False):
    """What the queries of a block gather from all tokens up to their own, and the state after it.

        recent_ij = q_i . k_j + bias_ij,   j in the L tokens before the block, and up to i in it
        cached_ic = q_i . e_c,   c a code that a token before those has
        m_i = the largest of both
        numerator_i = sum_j exp(recent_ij - m_i) v_j + sum_c count_c exp(cached_ic - m_i) mean_c

    and the denominator the same sum without values. Only visible tokens of the query's own document
    count. Then the oldest tokens move from the block before to the cache:

        count'_c = count_c + |{j: code_j = c}|
        mean'_c = (count_c mean_c + sum_{j: code_j = c} v_j) / count'_c

    When a later document has begun among them, the cache starts afresh with it: no query of an
    earlier one is to come.

    Args:
        state: dict as of `empty_state`.
        block: dict of `query` (b, h, t, key_size) and of what the state holds of recent tokens:
            `key`, `code`, `value`, `visible`, `document` of the t new tokens.
        shared: dict of `codebook` (h, codes, key_size) and, where there are biases,
            `lag_key` (h, L + 1, key_size) and `lag_query` (h, 1, key_size), or `lag_bias`
            (h, 1, L + 1): for lags of L, L - 1, ..., 0.
        itself: bool, whether a token sees itself.
        grad_through_cache: bool, whether values get a gradient through the cache.

    Returns:
        The new state, and a tuple: numerator (b, h, t, value_size), denominator and largest score
        (b, h, t, 1).
    """
    query, codebook = block["query"], shared["codebook"]
    length, before = ops.shape(query)[2], ops.shape(state["key"])[2]
    both = {name: _joined(state, block, name) for name in ("key", "code", "value")}
    both |= {name: _joined(state, block, name, axis=1) for name in ("visible", "document")}

    recent = ops.matmul(query, ops.swapaxes(both["key"], -1, -2))  # (b, h, t, L + t)
    lag = before + ops.expand_dims(ops.arange(length), 1) - ops.arange(before + length)
    seen = _same(block["document"], both["document"]) & (lag >= (0 if itself else 1))
    seen = seen & ops.expand_dims(both["visible"], 1)  # (b, t, L + t)
    recent = mask_scores(recent, ops.expand_dims(seen, 1))
    biases = lag_scores(query, shared)
    if biases is not None:
        padding = [(0, 0)] * (len(biases.shape) - 1) + [(0, length)]
        recent = recent + skew(ops.pad(biases, padding))

    counts = ops.expand_dims(state["count"], 2)  # (b, h, 1, codes)
    cached = products_with(codebook, query)
    known = _same(block["document"], ops.expand_dims(state["cached"], 1))  # (b, t, 1)
    cached = mask_scores(cached, (counts > 0) & ops.expand_dims(known, 1))

    largest = [ops.max(scores, -1, keepdims=True) for scores in (recent, cached)]
    # Above every masked score, so that the weight of those is 0 even where all are masked.
    largest = ops.maximum(ops.stop_gradient(ops.maximum(*largest)), MASKED / 2)
    weights, cache_weights = ops.exp(recent - largest), counts * ops.exp(cached - largest)
    denominator = ops.sum(weights, -1, keepdims=True) + ops.sum(cache_weights, -1, keepdims=True)
    numerator = ops.matmul(weights, both["value"]) + ops.matmul(cache_weights, state["mean"])

    after = {name: x[:, :, length:] for name, x in both.items() if name in ("key", "code", "value")}
    after |= {name: both[name][:, length:] for name in ("visible", "document")}
    after |= _absorbed(state, both, length, grad_through_cache)
    return after, (numerator, denominator, largest)


def _absorbed(state, both, length, grad_through_cache):
    """The cache with the first tokens of `both`, `length` of them."""
    code, value = both["code"][:, :, :length], both["value"][:, :, :length]
    visible, document = both["visible"][:, :length], both["document"][:, :length]
    newest = document[:, -1]
    counted = visible & ops.equal(document, ops.expand_dims(newest, 1))
    old = ops.equal(state["cached"], newest)[:, None, None]
    # No gradient comes from counts: a code is chosen, not computed.
    one_hot = ops.one_hot(code, state["count"].shape[-1], dtype=value.dtype)  # (b, h, t, codes)
    one_hot = one_hot * ops.cast(counted, value.dtype)[:, None, :, None]
    kept = ops.where(old, state["count"], 0)
    count = kept + ops.sum(one_hot, 2)
    divisor = ops.expand_dims(ops.maximum(count, 1), -1)
    total = ops.matmul(ops.swapaxes(one_hot, -1, -2), value)
    mean = ops.expand_dims(kept, -1) / divisor * state["mean"] + total / divisor
    mean = mean if grad_through_cache else ops.stop_gradient(mean)
    return {"count": count, "mean": mean, "cached": newest}


def lag_scores(query, shared):
    """The biases of each query by lag: (b or 1, h, t, L + 1), lag L first; None: there are none.

    bias_i(lag) = (q_i + lag_query) . lag_key(lag)  or  lag_bias(lag)
    """
    if "lag_key" in shared:
        query = query + shared["lag_query"]
        return products_with(shared["lag_key"], query)
    if "lag_bias" not in shared:
        return None
    bias = ops.expand_dims(shared["lag_bias"], 0)
    _, heads, length, _ = ops.shape(query)
    return ops.broadcast_to(bias, (1, heads, length, bias.shape[-1]))


def skew(x, offset=0):
    """Rows by distance as rows by place: y[i, j] = x[i, j - i + offset].

    Where that lies outside of row i, it is read from the row before or after: there must stand
    zeros.

    Args:
        x: (..., t, w).
        offset: int.

    Returns:
        (..., t, w - 1).
    """
    *leading, length, width = ops.shape(x)
    flat = ops.reshape(x, (*leading, length * width))
    flat = flat[..., offset : offset + length * (width - 1)]
    return ops.reshape(flat, (*leading, length, width - 1))


def document_runs(segment_ids, last=None):
    """The number of each token's document: how often the segment has changed up to it.

    Args:
        segment_ids: (b, n) int.
        last: (b,) int, the segment before. None: that of the first token.

    Returns:
        int32 (b, n).

    Example:

    >>> import numpy as np
    >>> np.asarray(document_runs(np.array([[7, 7, 2, 2, 7]]))).tolist()
    [[0, 0, 1, 1, 2]]
    """
    segment_ids = ops.cast(segment_ids, "int32")
    first = segment_ids[:, :1] if last is None else ops.expand_dims(last, 1)
    previous = ops.concatenate((first, segment_ids[:, :-1]), axis=1)
    return ops.cumsum(ops.cast(ops.not_equal(segment_ids, previous), "int32"), axis=1)


def _joined(state, block, name, axis=2):
    return ops.concatenate((state[name], block[name]), axis=axis)


def _same(rows, columns):
    """Whether documents are the same, (b, t, m), from (b, t) and (b, m)."""
    return ops.equal(ops.expand_dims(rows, 2), ops.expand_dims(columns, 1))
