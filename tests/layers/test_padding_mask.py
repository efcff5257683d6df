import keras
import numpy as np

from keras_ext.layers import PaddingMask


def test_tokens_are_the_ids_above_0_and_the_first_of_each_row():
    ids = np.array([[3, 1, 2, 9], [5, 0, 7, 0], [0, 0, 4, 0], [0, 0, 0, 0]])
    expected = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0]], bool)
    mask = keras.ops.convert_to_numpy(PaddingMask()(ids))
    np.testing.assert_array_equal(mask, expected)
    assert mask.dtype == bool


def test_ids_are_not_rounded_to_half_precision():
    ids = np.array([[7, 70000, 1, 0]])
    mask = PaddingMask(dtype="mixed_float16")(ids)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(mask), [[True, True, True, False]])


def test_the_output_carries_no_mask_of_its_own():
    ids = keras.Input((4,), dtype="int32")
    masked = keras.layers.Masking()(keras.Input((4, 2)))
    assert PaddingMask().compute_mask(ids, masked) is None
