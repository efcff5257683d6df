import numpy as np
import pytest

from keras_ext.ops.rows import as_rows


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_are_those_of_the_sequences_one_after_another_unless_in_float16(dtype):
    x = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    expected = x if dtype == "float16" else np.concatenate([x[0], x[1]])
    np.testing.assert_array_equal(np.array(as_rows(x)), expected)
