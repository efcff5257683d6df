import numpy as np
import pytest

from keras_ext.layers.attention_mask import AttentionMask


def test_a_language_model_sees_what_stands_before_and_itself():
    mask = np.array(AttentionMask("lm")(np.zeros((2, 4), "int32")))
    assert mask.shape == (1, 4, 4)
    for i, j in np.ndindex(4, 4):
        assert mask[0, i, j] == (j <= i)


def test_unilm_sees_the_source_whole_and_the_target_from_left_to_right():
    segments = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]])
    mask = np.array(AttentionMask("unilm")(segments))
    expected = [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1] * 5]
    np.testing.assert_array_equal(mask[0], expected)
    # Padding has segment 0 and stands behind: the last token of the target does see it.
    np.testing.assert_array_equal(mask[1, 2], [1, 1, 1, 1, 1])
    np.testing.assert_array_equal(mask[1, 1], [1, 1, 0, 0, 0])


def test_another_application_is_refused():
    with pytest.raises(ValueError, match="Received: application='encoder'"):
        AttentionMask("encoder")
