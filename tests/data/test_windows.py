import numpy as np
import pytest

from keras_ext.data import Encoding, make_windows


def encoding(count):
    starts = 3 * np.arange(count, dtype="int32")
    return Encoding(100 + np.arange(count, dtype="int32"), np.stack([starts, starts + 2], axis=1))


@pytest.mark.parametrize("stride", [0, 1, 4])
def test_windows_cover_every_token_and_share_the_stride(stride):
    for count in range(1, 40):
        whole = encoding(count)
        windows = make_windows(whole, 7, max_length=8, stride=stride, start_id=1, end_id=2)
        for window in windows:
            inner = slice(window.first, window.first + len(window.ids) - 2)
            assert window.document == 7
            assert window.ids.tolist() == [1, *whole.ids[inner], 2]
            assert window.offsets[[0, -1]].tolist() == [[-1, -1], [-1, -1]]
            np.testing.assert_array_equal(window.offsets[1:-1], whole.offsets[inner])
            assert window.ids.dtype == window.offsets.dtype == np.int32
        if count <= 6:
            assert len(windows) == 1
            assert len(windows[0].ids) == count + 2
            continue
        assert all(len(window.ids) == 8 for window in windows)
        shared = [a.first + 6 - b.first for a, b in zip(windows, windows[1:], strict=False)]
        assert all(s == stride for s in shared[:-1])
        assert stride <= shared[-1] < 6
        assert windows[0].first == 0
        assert windows[-1].first == count - 6


def test_no_tokens_give_no_windows():
    assert make_windows(encoding(0), 0, 8, 2, 1, 2) == []


@pytest.mark.parametrize(("max_length", "stride"), [(8, 6), (8, 7), (8, -1), (2, 0), (0, 0)])
def test_windows_that_stand_still_are_errors(max_length, stride):
    with pytest.raises(ValueError, match=f"stride={stride}, max_length={max_length}"):
        make_windows(encoding(3), 0, max_length, stride, 1, 2)
