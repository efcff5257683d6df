import numpy as np
import pytest
from keras import ops

from keras_ext.ops import first_occurrences, is_masked, mask_labels, span_labels
from keras_ext.ops.labels import FAR, label_tensor


def test_first_occurrences_equal_a_set():
    rng = np.random.default_rng(0)
    indices, valid = rng.integers(0, 4, (20, 6)), rng.random((20, 6)) < 0.6
    expected = np.zeros_like(valid)
    for row in range(20):
        seen = set()
        for column in range(6):
            if valid[row, column] and indices[row, column] not in seen:
                expected[row, column] = True
                seen.add(indices[row, column])
    assert np.array_equal(np.array(first_occurrences(indices, valid)), expected)


def test_invalid_entry_hides_no_later_valid_one():
    result = first_occurrences(np.array([[5, 5, 5]]), np.array([[False, True, True]]))
    assert np.array(result).tolist() == [[False, True, False]]


def test_mask_labels_masks_exactly_the_named_scores():
    scores = np.arange(10, dtype="float32").reshape(2, 5)
    indices = np.array([[4, 1, 4, 0], [0, 0, 0, 0]])
    valid = np.array([[True, True, True, False], [False] * 4])
    result = np.array(mask_labels(scores, indices, valid))
    masked = np.zeros((2, 5), bool)
    masked[0, [1, 4]] = True
    assert np.array_equal(np.array(is_masked(result)), masked)
    assert np.isfinite(result).all()
    assert np.array_equal(result[~masked], scores[~masked])


SPANS = np.array(
    [
        [
            [0, 0, 0],
            [2, 3, 3],
            [2, 3, 1],  # end before start is in range: losses decide by tril_mask
            [3, 0, 1],  # no such type
            [0, 4, 4],  # beyond the text
            [0, 0, 4],
            [0, -1, 2],
            [-1, 2, 3],
            [-1, -1, -1],
        ]
    ]
)
VALID = [[True, True, True] + [False] * 6]


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_span_labels_in_range_are_valid_others_become_zero(dtype):
    *parts, valid = span_labels(ops.convert_to_tensor(SPANS.astype(dtype)), heads=3, length=4)
    assert np.array(valid).tolist() == VALID
    for part, column in zip(parts, SPANS.transpose(2, 0, 1), strict=True):
        assert ops.dtype(part) == "int32"
        assert np.array_equal(np.array(part), np.where(VALID, column, 0))


def test_empty_list_of_spans_is_padding():
    *_, valid = span_labels(ops.zeros((2, 0, 3), "int32"), heads=1, length=4)
    assert not np.array(valid).any()
    assert valid.shape[0] == 2


@pytest.mark.parametrize("shape", [(2, 3), (2, 5, 4), (2, 3, 4, 4)])
def test_other_shapes_raise(shape):
    with pytest.raises(ValueError, match="type, start, end.*Received: shape="):
        span_labels(ops.zeros(shape, "int32"), heads=3, length=4)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, 2**63 + 5, 2**64 - 1], "uint64"),
        [3, 2**70, 2**64],
        np.array([3, 2**40, 2**62]),
    ],
)
def test_no_large_integer_becomes_padding_or_another_label(labels):
    assert ops.convert_to_numpy(label_tensor(labels)).tolist() == [3, FAR, FAR]
