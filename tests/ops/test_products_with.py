import numpy as np
import pytest
from gradients import value_and_gradient

from keras_ext.ops.products_with import products_with

SHAPES = [
    ((7, 4), (16, 1, 5, 4)),  # these three end the process in TensorFlow's `matmul`
    ((1, 7, 4), (16, 1, 5, 4)),
    ((1, 1, 7, 4), (16, 1, 5, 4)),
    ((3, 7, 4), (2, 3, 5, 4)),
    ((2, 3, 7, 4), (2, 3, 5, 4)),
    ((7, 4), (5, 4)),
    ((1, 7, 4), (2, 3, 5, 4)),
]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("table", "x"), SHAPES, ids=str)
def test_are_those_of_numpy_with_their_gradients(rng, table, x, compiled):
    table, x = (rng.normal(size=shape).astype("float32") for shape in (table, x))
    value, gradients = value_and_gradient(products_with, table, x, compiled=compiled)
    expected = np.einsum("...nd,...md->...nm", x, table)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    columns = np.broadcast_to(table.sum(-2, keepdims=True), x.shape)
    np.testing.assert_allclose(gradients[1], columns, rtol=1e-5, atol=1e-6)
    rows = np.broadcast_to(x.sum(-2, keepdims=True), (*x.shape[:-2], *table.shape[-2:]))
    extra = len(rows.shape) - len(table.shape)
    rows = rows.sum(tuple(range(extra)))
    axes = tuple(i for i, size in enumerate(table.shape) if size == 1 and rows.shape[i] > 1)
    np.testing.assert_allclose(gradients[0], rows.sum(axes, keepdims=True), rtol=1e-4, atol=1e-5)
