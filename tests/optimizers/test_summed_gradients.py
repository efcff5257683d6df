import keras
import numpy as np
import pytest

from keras_ext.optimizers import SummedGradients


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="sparse gradients")
def test_repeated_rows_are_added_up_before_they_are_clipped_and_squared():
    import tensorflow as tf

    def step(optimizer, gradient):
        table = keras.Variable(np.ones((3, 2), "float32"), name="embeddings")
        optimizer.build([table])
        optimizer.apply([gradient], [table])
        return table.numpy()

    rows = tf.constant([[3.0, 0.0], [3.0, 0.0], [0.0, 8.0]])
    sparse = tf.IndexedSlices(rows, tf.constant([1, 1, 2]), tf.constant([3, 2]))
    dense = tf.convert_to_tensor(sparse)  # norm 10, that of the rows apart is below

    def sgd():
        return keras.optimizers.SGD(1.0, global_clipnorm=1.0)

    clipped = 1.0 - np.array([[0.0, 0.0], [0.6, 0.0], [0.0, 0.8]])
    np.testing.assert_allclose(step(SummedGradients(sgd()), sparse), clipped, rtol=1e-6)
    assert np.abs(step(sgd(), sparse) - clipped).max() > 0.05  # what Keras does
    adam = step(SummedGradients(keras.optimizers.Adam(0.1)), sparse)
    np.testing.assert_array_equal(adam, step(keras.optimizers.Adam(0.1), dense))


def test_dense_gradients_go_through_as_they_are():
    values = []
    for wrap in (SummedGradients, lambda optimizer: optimizer):
        variable = keras.Variable(np.ones(3, "float32"))
        optimizer = wrap(keras.optimizers.Adam(0.1, global_clipnorm=0.5))
        optimizer.build([variable])
        for seed in range(3):
            gradient = np.random.default_rng(seed).normal(size=3).astype("float32")
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        values.append(keras.ops.convert_to_numpy(variable))
    np.testing.assert_array_equal(*values)
