import numpy as np
import pytest
from gradients import to_numpy, value_and_gradient
from keras import ops

from keras_ext.ops.attention_scores import attention_scores

RNG = np.random.default_rng(0)
QUERY, KEY = RNG.normal(size=(2, 2, 9, 3, 4)).astype("float32")
FLOATS = np.sort(RNG.uniform(0, 30, (2, 9)), axis=1).astype("float32")


def offset(distance, window, slope):
    """By how much a pair at a distance is turned."""
    if window is None or abs(distance) < window:
        return distance
    return np.sign(distance) * (window + slope * (abs(distance) - window))


def reference(query, key, positions, window=None, slope=0.0):
    """One pair at a time, (b, heads, n, m): the query is turned by the whole offset."""
    batch, length, heads, size = query.shape
    frequencies = 10000.0 ** (-np.arange(0, size, 2) / size)
    scores = np.zeros((batch, heads, length, key.shape[1]))
    for b, h, i, j in np.ndindex(scores.shape):
        angle = offset(positions[b][i] - positions[b][j], window, slope) * frequencies
        q = (query[b, i, h, ::2] + 1j * query[b, i, h, 1::2]) * np.exp(1j * angle)
        k = key[b, j, h, ::2] + 1j * key[b, j, h, 1::2]
        scores[b, h, i, j] = np.real(q * np.conj(k)).sum()
    return scores


@pytest.mark.parametrize(
    ("window", "slope"), [(None, 0.0), (3, 0.0), (3.5, 0.25), (1, 0.0), (100, 0.0)]
)
@pytest.mark.parametrize("positions", [None, FLOATS], ids=["places", "floats"])
def test_scores_are_those_of_the_offsets(window, slope, positions):
    given = np.tile(np.arange(9.0), (2, 1)) if positions is None else positions
    expected = reference(QUERY, KEY, given, window, slope)
    scores = to_numpy(attention_scores(QUERY, KEY, True, positions, window, slope))
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    one_head = attention_scores(QUERY[:, :, 0], KEY[:, :, 0], True, positions, window, slope)
    np.testing.assert_allclose(to_numpy(one_head), expected[:, 0], atol=1e-4)
    causal = to_numpy(attention_scores(QUERY, KEY, True, positions, window, slope, causal=True))
    past = np.tril(np.ones((9, 9), bool))
    np.testing.assert_allclose(causal[..., past], expected[..., past], atol=1e-4)


def test_positions_of_one_row_serve_all_samples():
    one = attention_scores(QUERY, KEY, True, FLOATS[0], 3)
    each = attention_scores(QUERY, KEY, True, np.tile(FLOATS[:1], (2, 1)), 3)
    np.testing.assert_allclose(to_numpy(one), to_numpy(each), atol=1e-5)


def test_queries_and_keys_may_differ_in_number():
    positions = np.tile(np.arange(9.0), (2, 1))
    scores = to_numpy(attention_scores(QUERY[:, :5], KEY, True, None, 2))
    expected = reference(QUERY[:, :5], KEY, positions, 2)
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_without_rope_positions_do_not_matter():
    expected = np.einsum("bihd,bjhd->bhij", QUERY, KEY)
    scores = to_numpy(attention_scores(QUERY, KEY, positions=FLOATS))
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_scores_are_float32_with_a_gradient_to_both():
    half = ops.cast(QUERY, "bfloat16")
    assert ops.dtype(attention_scores(half, half)) == "float32"

    def loss(query, key):
        return ops.sum(ops.square(attention_scores(query, key, True, None, 2, 0.5)))

    _, gradients = value_and_gradient(loss, QUERY, KEY)
    assert all(np.abs(gradient).max() > 0.1 for gradient in gradients)
