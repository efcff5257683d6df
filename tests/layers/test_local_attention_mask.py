import keras
import numpy as np
import pytest
from gradients import to_numpy

from keras_ext.layers.local_attention_mask import LocalAttentionMask


@pytest.mark.parametrize("window", [1, 3, 9])
@pytest.mark.parametrize("causal", [False, True])
def test_a_token_sees_what_is_near(window, causal):
    mask = to_numpy(LocalAttentionMask(window, causal)(np.zeros((2, 7), "int32")))
    expected = np.zeros((1, 7, 7), bool)
    for i, j in np.ndindex(7, 7):
        expected[0, i, j] = (0 <= i - j if causal else True) and abs(i - j) < window
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, expected)


def test_given_positions_make_the_distances():
    positions = np.array([[0, 5, 6.5], [2, 1, 0]], "float32")
    mask = to_numpy(LocalAttentionMask(2)(np.zeros((2, 3, 4)), positions=positions))
    assert mask.astype(int).tolist() == [
        [[1, 0, 0], [0, 1, 1], [0, 1, 1]],
        [[1, 1, 0], [1, 1, 1], [0, 1, 1]],
    ]
    mask = to_numpy(LocalAttentionMask(2, causal=True)(np.zeros((2, 3)), positions=positions))
    assert mask.astype(int).tolist() == [
        [[1, 0, 0], [0, 1, 0], [0, 1, 1]],
        [[1, 1, 0], [0, 1, 1], [0, 0, 1]],
    ]
    # As whole numbers, the same for all sequences.
    mask = LocalAttentionMask(2)(np.zeros((2, 3)), positions=np.array([4, 4, 0]))
    assert to_numpy(mask).astype(int).tolist() == [[[1, 1, 0], [1, 1, 0], [0, 0, 1]]]


def test_positions_are_not_rounded_to_the_policy():
    positions = np.array([[4096, 4097, 4098]], "float32")
    layer = LocalAttentionMask(2, dtype="mixed_bfloat16")
    mask = to_numpy(layer(np.zeros((1, 3), "float32"), positions=positions))
    assert mask.astype(int).tolist() == [[[1, 1, 0], [1, 1, 1], [0, 1, 1]]]


def test_of_a_graph_the_shapes_are_known_and_no_mask_goes_on():
    ids, positions = keras.Input((None,), dtype="int32"), keras.Input((5,))
    mask = LocalAttentionMask(2)(ids)
    assert (mask.shape, mask.dtype) == ((1, None, None), "bool")
    assert LocalAttentionMask(2)(keras.Input((5, 3)), positions=positions).shape == (None, 5, 5)
    embedded = keras.layers.Embedding(3, 4, mask_zero=True)(np.array([[1, 2, 0]]))
    assert getattr(LocalAttentionMask(2)(embedded), "_keras_mask", None) is None
    model = keras.Model([ids, positions], LocalAttentionMask(2)(ids, positions=positions))
    output = model([np.zeros((1, 5), "int32"), np.arange(5, dtype="float32")[None]])
    assert to_numpy(output).sum() == 13
    # A list, too.
    mask = LocalAttentionMask(2)(ids, positions=[0, 1, 5])
    output = keras.Model(ids, mask)(np.zeros((1, 3), "int32"))
    assert to_numpy(output).astype(int).tolist() == [[[1, 1, 0], [1, 1, 0], [0, 0, 1]]]


def test_a_window_below_1_is_refused():
    with pytest.raises(ValueError, match="at least itself. Received: window=0"):
        LocalAttentionMask(0)
