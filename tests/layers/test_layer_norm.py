import keras
import numpy as np
import pytest

from keras_ext.layers.layer_norm import LayerNorm


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_it_is_the_layer_of_keras_to_the_bit(policy):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 8), loc=3, scale=400).astype("float32")
    ours = LayerNorm(1e-3, dtype=policy)
    theirs = keras.layers.LayerNormalization(epsilon=1e-3, dtype=policy)
    for layer in (ours, theirs):
        layer.build(x.shape)
    gamma, beta = rng.normal(size=(2, 8)).astype("float32")
    theirs.set_weights([gamma, beta])
    ours.set_weights([beta, gamma])
    assert [weight.name for weight in ours.weights] == ["beta", "gamma"]
    outputs = [keras.ops.cast(layer(x), "float32") for layer in (ours, theirs)]
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, outputs))
