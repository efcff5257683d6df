import numpy as np
import pytest

from keras_ext.ops.settings import effective, number, whole


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_whole_numbers_become_those_of_python(value):
    assert whole("steps", value) == 3
    assert type(whole("steps", value)) is int


@pytest.mark.parametrize("value", [True, np.True_, 3.0, np.float32(3), "3", None, [3], 0, -1])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(ValueError, match="Expected steps to be an int of at least 1. Received: st"):
        whole("steps", value)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int64(2), np.float16(2)])
def test_numbers_become_those_of_python(value):
    assert number("rate", value) == 2.0
    assert type(number("rate", value)) is float


@pytest.mark.parametrize("value", [True, np.True_, "2", None, np.nan, np.inf, [2.0], 1j])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="Expected rate to be a finite number. Received: rate="):
        number("rate", value)


def test_an_argument_without_an_effect_is_refused():
    condition = "decay", None, 0.5, "momentum=True"
    assert effective(*condition, holds=True) == 0.5
    assert effective(*condition, holds=False) is None
    assert effective("decay", 0.5, 0.5, "momentum=True", holds=False) is None  # as in older files
    assert effective("decay", 0.0, 0.5, "momentum=True", holds=True) == 0.0
    with pytest.raises(ValueError, match="decay has an effect only with momentum=True.*decay=0.0"):
        effective("decay", 0.0, 0.5, "momentum=True", holds=False)
