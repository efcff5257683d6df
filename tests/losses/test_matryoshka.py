import keras
import numpy as np
import pytest
from gradients import relative_error, value_and_gradient
from keras import ops

from keras_ext.losses.flat_nce import FlatNCE
from keras_ext.losses.info_nce import InfoNCE, info_nce
from keras_ext.losses.matryoshka import Matryoshka

GROUPS = np.array([2**24, 2**24 + 1, -1, 2**24], "int32")


def texts(batch=4, count=3, width=6, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, count, width)).astype("float32")


def to_numpy(x):
    return ops.convert_to_numpy(x)


def test_value_and_gradient_are_the_weighted_sum_over_cut_vectors():
    weights = np.array([1, 2, 0, 1], "float32")
    loss = Matryoshka(InfoNCE(0.5), [6, 2], [1.0, 0.25])
    value, (gradient,) = value_and_gradient(lambda x: loss(GROUPS, x, weights), texts())
    parts = [
        value_and_gradient(lambda x, d=d: InfoNCE(0.5)(GROUPS, x[..., :d], weights), texts())
        for d in (6, 2)
    ]
    assert value == pytest.approx(parts[0][0] + 0.25 * parts[1][0], rel=1e-6)
    assert relative_error(gradient, parts[0][1][0] + 0.25 * parts[1][1][0]) < 1e-6


def test_weights_are_one_and_the_order_changes_nothing():
    value = to_numpy(Matryoshka(InfoNCE(), [4, 2, 1])(GROUPS, texts()))
    other = to_numpy(Matryoshka(InfoNCE(), [1, 2, 4], [1, 1, 1])(GROUPS, texts()))
    assert value == pytest.approx(other, rel=1e-6)
    parts = [to_numpy(InfoNCE()(GROUPS, texts()[..., :d])) for d in (1, 2, 4)]
    assert value == pytest.approx(sum(parts), rel=1e-6)


def test_only_the_first_components_count():
    other = texts()
    other[..., 4:] = np.nan
    loss = Matryoshka(FlatNCE(), [4, 2])
    np.testing.assert_array_equal(loss(GROUPS, other), loss(GROUPS, texts()))


@pytest.mark.parametrize("reduction", ["none", "sum", "sum_over_batch_size"])
def test_reduction_is_that_of_the_loss_unless_given(reduction):
    rows = to_numpy(sum(info_nce(GROUPS, texts()[..., :d]) for d in (6, 3)))
    expected = {"none": rows, "sum": rows.sum(), "sum_over_batch_size": rows.mean()}[reduction]
    for loss in (
        Matryoshka(InfoNCE(reduction=reduction), [6, 3]),
        Matryoshka(InfoNCE(), [6, 3], reduction=reduction),
    ):
        np.testing.assert_allclose(loss(GROUPS, texts()), expected, rtol=1e-5)
        assert loss.reduction == reduction


def test_a_loss_of_keras_on_vectors_cuts_the_labels_too():
    targets, vectors = texts(count=1, seed=1)[:, 0], texts(count=1)[:, 0]
    value = to_numpy(Matryoshka(keras.losses.MeanSquaredError(), [6, 2])(targets, vectors))
    squares = (targets - vectors) ** 2
    assert value == pytest.approx(squares.mean() + squares[:, :2].mean(), rel=1e-5)


class FirstComponents(keras.losses.Loss):
    """A loss of 2B rows whose labels are (2B, 1)."""

    def call(self, y_true, y_pred):
        return ops.sum(y_pred, axis=-1) * y_true[:, 0]


def test_two_axes_with_labels_of_one_column():
    vectors, labels = texts(count=1)[:, 0], np.array([[1.0], [2.0], [3.0], [0.0]], "float32")
    value = to_numpy(Matryoshka(FirstComponents(reduction="sum"), [1, 5])(labels, vectors))
    expected = (labels[:, 0] * (vectors[:, 0] + vectors[:, :5].sum(-1))).sum()
    assert value == pytest.approx(expected, rel=1e-5)


def test_config_brings_the_inner_loss_back():
    inner = InfoNCE(0.25, "dot", symmetric=True)
    stored = keras.saving.serialize_keras_object(Matryoshka(inner, (4, 2), (1.0, 0.5)))
    again = keras.saving.deserialize_keras_object(stored)
    assert again.loss.get_config() == inner.get_config()
    assert (again.dims, again.loss_weights) == ([4, 2], [1.0, 0.5])
    expected = Matryoshka(inner, [4, 2], [1.0, 0.5])(GROUPS, texts())
    np.testing.assert_array_equal(again(GROUPS, texts()), expected)


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_without_labels_and_a_short_batch(jit_compile):
    model = keras.Sequential([keras.Input((3, 6)), keras.layers.Identity()])
    model.compile(loss=Matryoshka(InfoNCE(), [6, 2]), jit_compile=jit_compile)
    expected = sum(to_numpy(info_nce(None, texts()[..., :d])).mean() for d in (6, 2))
    assert model.evaluate(texts(), verbose=0) == pytest.approx(expected, rel=1e-5)
    weights = np.array([1, 1, 1, 0])
    expected = sum(to_numpy(info_nce(None, texts()[:3, :, :d])).mean() for d in (6, 2))
    result = model.evaluate(texts(), np.full(4, -1), sample_weight=weights, verbose=0)
    assert result == pytest.approx(expected, rel=1e-5)


def test_bad_arguments_raise():
    for dims in ([], [4, 4], [0, 4], [-1]):
        with pytest.raises(ValueError, match="distinct and positive.*Received: dims="):
            Matryoshka(InfoNCE(), dims)
    with pytest.raises(ValueError, match="each of 2 dimensions.*Received: loss_weights="):
        Matryoshka(InfoNCE(), [4, 2], [1.0])
    for loss in ("mse", keras.losses.mean_squared_error, InfoNCE):
        with pytest.raises(ValueError, match=r"an instance of keras.losses.Loss. Received: loss="):
            Matryoshka(loss, [4])
    with pytest.raises(ValueError, match="6 components have no first 8. Received: dims="):
        Matryoshka(InfoNCE(), [8, 2])(GROUPS, texts())
