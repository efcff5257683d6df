import keras
import numpy as np
import pytest

from keras_ext.layers import ComposedEmbedding
from keras_ext.ops import near_rectangle

COMBINE = {
    "add": np.add,
    "multiply": np.multiply,
    "concat": lambda row, column: np.concatenate([row, column], -1),
}


@pytest.mark.parametrize("combine", COMBINE)
@pytest.mark.parametrize("ids", [1, 2, 11, 12, 130, 5003])
def test_composes_row_and_column(combine, ids):
    layer = ComposedEmbedding(ids, 6, combine, embeddings_initializer="normal")
    table = keras.ops.convert_to_numpy(layer.table())
    a, b, c = near_rectangle(ids)
    parts = keras.ops.convert_to_numpy(layer.parts)
    for i in range(ids):
        if i < c:
            expected = keras.ops.convert_to_numpy(layer.residual)[i]
        else:
            row, column = divmod(i - c, b)
            expected = COMBINE[combine](parts[row], parts[a + column])
        np.testing.assert_allclose(table[i], expected, rtol=1e-6)
    assert table.shape == (ids, 6)
    assert sum(weight.shape[0] for weight in layer.weights) == a + b + c


@pytest.mark.parametrize("combine", COMBINE)
def test_starts_with_the_variance_of_a_plain_embedding(combine):
    initializer = keras.initializers.RandomNormal(stddev=0.02, seed=1)
    layer = ComposedEmbedding(40_000, 64, combine, initializer)
    table = keras.ops.convert_to_numpy(layer.table())
    np.testing.assert_allclose(table.std(), 0.02, rtol=0.05)


@pytest.mark.parametrize("combine", COMBINE)
def test_all_ids_differ_from_the_start(combine):
    """With one draw for two tables of a shape, (i, j) and (j, i) would be equal."""
    initializer = keras.initializers.RandomNormal(seed=1)
    layer = ComposedEmbedding(900, 64, combine, initializer)
    table = keras.ops.convert_to_numpy(layer.table())
    assert len(np.unique(table.round(6), axis=0)) == 900


@pytest.mark.one_backend
@pytest.mark.parametrize("ids", [103, 130])
def test_an_id_that_there_is_not_is_an_error_as_in_keras(ids):
    """On TensorFlow's processor, with rows of their own (3 of 103 ids) and without."""
    import tensorflow as tf

    for layer in (ComposedEmbedding(ids, 4), keras.layers.Embedding(ids, 4)):
        layer.build((None,))
        with pytest.raises(tf.errors.InvalidArgumentError):
            layer(np.array([1, ids]))
        np.testing.assert_array_equal(layer(np.array([-1])), layer(np.array([ids - 1])))


def test_hands_the_mask_on():
    ids = np.array([[3, 1, 0], [0, 2, 0]])
    layer = ComposedEmbedding(5, 4, mask_zero=True)
    mask = keras.ops.convert_to_numpy(layer.compute_mask(ids))
    np.testing.assert_array_equal(mask, ids != 0)
    assert ComposedEmbedding(5, 4).compute_mask(ids) is None


def test_learns_what_a_table_of_sums_can_hold():
    """Targets that are sums of row and column are met; each part of the table has a gradient."""
    a, b, c = near_rectangle(103)
    rng = np.random.default_rng(0)
    targets = np.concatenate(
        [
            rng.normal(size=(c, 3)),
            (rng.normal(size=(a, 1, 3)) + rng.normal(size=(1, b, 3))).reshape(-1, 3),
        ]
    )
    model = keras.Sequential([ComposedEmbedding(103, 3)])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    model.fit(np.arange(103)[:, None], targets[:, None], batch_size=103, epochs=300, verbose=0)
    assert model.evaluate(np.arange(103)[:, None], targets[:, None], verbose=0) < 1e-3


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"input_dim": 0, "output_dim": 4}, "above 0"),
        ({"input_dim": 9, "output_dim": 4, "combine": "mult"}, "combine='mult'"),
        ({"input_dim": 9, "output_dim": 5, "combine": "concat"}, "even"),
        ({"input_dim": 9, "output_dim": 0}, "output_dim=0"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        ComposedEmbedding(**arguments)
