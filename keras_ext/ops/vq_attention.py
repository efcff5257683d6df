"""Attention with quantised keys over a whole sequence: in linear time, and by all pairs."""

import functools

import keras
from keras import ops

from keras_ext.ops.masking import MASKED, mask_scores
from keras_ext.ops.nearest_code import nearest_code
from keras_ext.ops.scan_blocks import scan_blocks
from keras_ext.ops.vq_block import attend_block, empty_state, lag_scores, skew


def nearest_codes(key, codebook, block_length):
    """The nearest code of each key, `nearest_code` block by block: distances take no n x codes.

    Args:
        key: (b, h, n, key_size).
        codebook: (h, codes, key_size).
        block_length: int.

    Returns:
        int32 (b, h, n).
    """
    if key.shape[2] is not None and key.shape[2] <= 2 * block_length:
        return nearest_code(key, codebook)
    blocks = _blocks(key, 2, block_length)
    codes = ops.map(lambda block: nearest_code(block, codebook), blocks)
    return _whole(ops.expand_dims(codes, -1))[:, :, : ops.shape(key)[2], 0]


def linear_vq_attention(tokens, before, after, block_length, grad_through_cache=False):
    """What each token gathers, block by block.

        output_i = sum_j exp(q_i . e_{z_j} + bias_ij) v_j / sum_j exp(q_i . e_{z_j} + bias_ij)

    as `attend_block` takes it, over the tokens j <= i. Where a token sees those after it, too, they
    are gathered on the way back: the sequence is gone through once more from its end, and both
    sums are put together.

    Args:
        tokens: dict of `query`, `key` (b, h, n, key_size), `code` (b, h, n) int32, `value`
            (b, h, n, value_size), `visible` (b, n) bool and `document` (b, n) int32.
        before: dict, the `shared` of `attend_block` for tokens before the query.
        after: the same for those after it; None: they are not seen.
        block_length: int.
        grad_through_cache: bool.

    Returns:
        (b, h, n, value_size).
    """
    scan = functools.partial(_scan, block_length=block_length, through=grad_through_cache)
    parts = scan(tokens, before)
    if after is not None:
        axes = {"visible": 1, "document": 1}
        turned = {name: ops.flip(x, axes.get(name, 2)) for name, x in tokens.items()}
        others = [ops.flip(x, 2) for x in scan(turned, after, itself=False)]
        parts = _merged(parts, others)
    numerator, denominator, _ = parts
    return numerator / ops.where(denominator > 0, denominator, 1)


def quadratic_vq_attention(tokens, before, after, block_length):
    """The same numbers as `linear_vq_attention` from the scores of all pairs.

    The gradient reaches all keys and values, where the linear form has none through its cache.
    """
    query, key = tokens["query"], tokens["key"]
    length = ops.shape(query)[2]
    scores = ops.matmul(query, ops.swapaxes(key, -1, -2))
    rows, columns = (ops.expand_dims(tokens["document"], axis) for axis in (2, 1))
    seen = ops.equal(rows, columns) & ops.expand_dims(tokens["visible"], 1)
    if after is None:
        places = ops.arange(length)
        seen = seen & (ops.expand_dims(places, 1) >= places)
    scores = mask_scores(scores, ops.expand_dims(seen, 1))
    biases = _all_lags(query, before, after, block_length)
    if biases is not None:
        scores = scores + skew(biases, length - 1)[..., :length]
    # As in `attend_block`: where all is masked, the weights are 0.
    largest = ops.stop_gradient(ops.max(scores, -1, keepdims=True))
    weights = ops.exp(scores - ops.maximum(largest, MASKED / 2))
    total = ops.sum(weights, -1, keepdims=True)
    return ops.matmul(weights, tokens["value"]) / ops.where(total > 0, total, 1)


def _all_lags(query, before, after, block_length):
    """The biases of each query for lags of n - 1, ..., 0 and on, (b or 1, h, n, w), or None.

    Without `after` w = n + 1; with it w = 2 n, down to lags of -n.
    """
    past = lag_scores(query, before)
    if past is None:
        return None
    length = ops.shape(query)[2]
    past = past[..., _at_least_0(block_length + 1 - length) :]
    right, parts = 1, [past]
    if after is not None:
        future = ops.flip(lag_scores(query, after), -1)[..., 1 : length + 1]  # lags of -1, -2, ...
        right, parts = _at_least_0(length - block_length), [past, future]
    x = ops.concatenate(parts, -1)
    left = _at_least_0(length - block_length - 1)
    return ops.pad(x, [(0, 0)] * (len(x.shape) - 1) + [(left, right)])


def _at_least_0(number):
    return max(number, 0) if isinstance(number, int) else ops.maximum(number, 0)


def _scan(tokens, shared, block_length, through, itself=True):
    """The sums of `attend_block` for all tokens, (b, h, n, ...) each."""
    batch, heads, length, key_size = ops.shape(tokens["query"])
    value_size, dtype = tokens["value"].shape[-1], tokens["value"].dtype
    axes = {"visible": 1, "document": 1}
    blocks = {name: _blocks(x, axes.get(name, 2), block_length) for name, x in tokens.items()}
    codes = shared["codebook"].shape[1]
    state = empty_state(batch, heads, codes, block_length, key_size, value_size, dtype)
    static = (*tokens["query"].shape[:2], block_length)
    specs = tuple(keras.KerasTensor((*static, size), dtype) for size in (value_size, 1, 1))
    step = functools.partial(attend_block, itself=itself, grad_through_cache=through)
    parts = scan_blocks(step, state, blocks, shared, specs)
    return [_whole(x)[:, :, :length] for x in parts]


def _blocks(x, axis, size):
    """(b, ..., n, ...) as (blocks, b, ..., size, ...), filled up with what is not visible."""
    length = ops.shape(x)[axis]
    count = (length + size - 1) // size
    padding = [(0, count * size - length if i == axis else 0) for i in range(len(x.shape))]
    shape = list(ops.shape(x))
    shape[axis : axis + 1] = [count, size]
    return ops.moveaxis(ops.reshape(ops.pad(x, padding), shape), axis, 0)


def _whole(x):
    """Blocks (blocks, b, h, L, d) as one sequence (b, h, blocks L, d)."""
    count, batch, heads, size = ops.shape(x)[:4]
    return ops.reshape(ops.moveaxis(x, 0, 2), (batch, heads, count * size, x.shape[-1]))


def _merged(one, other):
    """Two sums with the largest score that each was divided by, as one."""
    (numerator, denominator, largest), (further, more, top) = one, other
    highest = ops.maximum(largest, top)
    old, new = ops.exp(largest - highest), ops.exp(top - highest)
    return old * numerator + new * further, old * denominator + new * more, highest
