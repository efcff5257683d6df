import numpy as np
from gradients import to_numpy

from keras_ext.ops.visible_keys import count_keys, visible_keys

TOKENS = np.array([[1, 1, 0, 1], [0, 0, 0, 0]], bool)
PAIRS = np.random.default_rng(0).random((2, 4, 4)) < 0.5


def test_all_masks_must_allow_a_key():
    visible = to_numpy(visible_keys(TOKENS, PAIRS, causal=True, length=4))
    for b, i, j in np.ndindex(2, 4, 4):
        assert visible[b, i, j] == (TOKENS[b, j] and PAIRS[b, i, j] and j <= i)


def test_each_mask_may_be_missing():
    assert visible_keys() is None
    np.testing.assert_array_equal(to_numpy(visible_keys(TOKENS)), TOKENS[:, None])
    np.testing.assert_array_equal(to_numpy(visible_keys([None, TOKENS])), TOKENS[:, None])
    np.testing.assert_array_equal(visible_keys(None, PAIRS), PAIRS)
    causal = to_numpy(visible_keys(causal=True, length=4))
    np.testing.assert_array_equal(causal, np.tril(np.ones((1, 4, 4), bool)))


def test_keys_are_counted_row_by_row():
    visible = visible_keys(TOKENS, PAIRS, causal=True, length=4)
    expected = to_numpy(visible).sum(-1, keepdims=True)
    np.testing.assert_array_equal(to_numpy(count_keys(visible, 4)), expected)
    assert float(count_keys(None, 7)) == 7.0
    # One column that stands for all four.
    np.testing.assert_array_equal(to_numpy(count_keys(TOKENS[:, :1], 4)), [[4.0], [0.0]])
