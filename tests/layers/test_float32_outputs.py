"""Layers whose output is float32 by contract round nothing to the compute dtype on the way."""

import numpy as np
import pytest
from gradients import to_numpy

from keras_ext import layers

VECTORS = np.random.default_rng(0).normal(size=(4, 2, 8)).astype("float32")
VECTORS[:, 1] = VECTORS[:, 0] * 1.0001
LAYERS = {
    "unit": lambda **kwargs: layers.UnitNormalization(**kwargs),
    "temperature": lambda **kwargs: layers.LearnableTemperature(**kwargs),
    "score": lambda **kwargs: layers.PairScore("dot", **kwargs),
    "classifier": lambda **kwargs: layers.PairClassifier(
        3, ["difference"], kernel_initializer="ones", **kwargs
    ),
    **{
        mode: lambda mode=mode, **kwargs: layers.Pooling(mode, **kwargs)
        for mode in layers.Pooling.MODES
    },
}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
@pytest.mark.parametrize("name", LAYERS)
def test_float32_vectors_give_in_half_precision_what_they_give_in_float32(name, policy):
    x = [VECTORS, 2 * VECTORS] if name == "first_last" else VECTORS
    expected, output = (to_numpy(LAYERS[name](dtype=dtype)(x)) for dtype in ("float32", policy))
    assert expected.any() and output.dtype == np.float32
    np.testing.assert_array_equal(output, expected)
