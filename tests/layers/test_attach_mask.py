import keras
import numpy as np

from keras_ext.layers.attach_mask import AttachMask


def test_the_layers_after_it_get_the_mask_from_keras():
    sequence, mask = keras.Input((None, 2)), keras.Input((None,), dtype="bool")
    attached = AttachMask()([sequence, mask])
    mean = keras.layers.GlobalAveragePooling1D()(keras.layers.Dense(2, "relu")(attached))
    model = keras.Model([sequence, mask], [attached, mean])
    x = np.random.default_rng(0).normal(size=(2, 4, 2)).astype("float32")
    tokens = np.array([[1, 1, 0, 1], [0, 1, 0, 0]], bool)
    same, mean = (np.array(output) for output in model([x, tokens]))
    np.testing.assert_array_equal(same, x)
    hidden = np.array(model.layers[-2](x))
    expected = [hidden[i][tokens[i]].mean(0) for i in range(2)]
    np.testing.assert_allclose(mean, expected, atol=1e-6)
