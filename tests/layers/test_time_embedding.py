import math

import numpy as np
import pytest
from keras import ops

from keras_ext.layers import TimeEmbedding


def naive(t, dim, scale):
    """The formula, number by number, in float64."""
    angles = [scale * t * 10000 ** (-2 * i / dim) for i in range(dim // 2)]
    return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]


@pytest.mark.parametrize(("dim", "scale"), [(8, 1000.0), (6, 16.0)])
def test_it_is_the_formula(dim, scale):
    t = np.array([0.0, 1e-5, 0.25, 0.999, 1.0], "float32")
    found = ops.convert_to_numpy(TimeEmbedding(dim, scale)(t))
    expected = [naive(float(x), dim, scale) for x in t]
    np.testing.assert_allclose(found, expected, atol=2e-4)  # 1000 has a spacing of 6e-5


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_neighbouring_steps_differ_in_every_precision(policy):
    t = (np.arange(1001) / 1000).astype("float32")
    features = ops.convert_to_numpy(TimeEmbedding(32, dtype=policy)(t))
    assert features.dtype == "float32"
    assert np.abs(np.diff(features, axis=0)).max(axis=1).min() > 0.5


@pytest.mark.parametrize(("dim", "scale"), [(5, 1.0), (0, 1.0), (4, 0.0), (4, float("nan"))])
def test_errors(dim, scale):
    with pytest.raises(ValueError, match="Received"):
        TimeEmbedding(dim, scale)
