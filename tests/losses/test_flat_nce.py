import numpy as np
import pytest
from gradients import numerical_gradient, relative_error, value_and_gradient
from keras import ops

from keras_ext.losses.flat_nce import FlatNCE, flat_nce
from keras_ext.losses.info_nce import info_nce

GROUPS = np.array([7, -1, 7, -1], "int32")


def texts(batch=4, hard=1, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, 2 + hard, 4)).astype("float32")


def reference(vectors, temperature):
    """The definition for `GROUPS` and one hard negative, in loops and float64."""
    vectors = np.asarray(vectors, "float64")
    vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    values = []
    for i, anchor in enumerate(vectors[:, 0]):
        strangers = [j for j in range(4) if j != i and {i, j} != {0, 2}]
        negatives = [*vectors[strangers, 1], *vectors[:, 2]]
        scores = np.array(negatives) @ anchor / temperature
        values.append(np.log(np.exp(scores).sum()) - anchor @ vectors[i, 1] / temperature)
    return np.array(values)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_value_and_gradient_are_those_of_the_definition(temperature, compiled):
    value, (gradient,) = value_and_gradient(
        lambda x: flat_nce(GROUPS, x, temperature), texts(), compiled=compiled
    )
    np.testing.assert_allclose(value, reference(texts(), temperature), rtol=1e-5, atol=1e-5)
    expected = numerical_gradient(lambda x: reference(x, temperature), texts())
    assert relative_error(gradient, expected) < 1e-5


def test_gradient_is_that_of_info_nce_divided_by_one_minus_the_share_of_the_positive():
    vectors = texts()
    vectors[1, 1] = vectors[1, 0]  # the share of this positive is almost 1
    for i in range(4):
        loss, (gradient,) = value_and_gradient(
            lambda x, i=i: info_nce(GROUPS, x, 0.1)[i : i + 1], vectors
        )
        _, (flat,) = value_and_gradient(lambda x, i=i: flat_nce(GROUPS, x, 0.1)[i : i + 1], vectors)
        rest = -np.expm1(-float(loss[0]))  # 1 - p, as p = exp(-loss)
        assert relative_error(flat, gradient / rest) < 1e-5
    assert rest < 0.99  # not a test at p = 0 alone


def test_gradient_is_that_of_the_form_of_the_paper():
    """xi / constant(xi) with xi the sum of exp(s_ij - s_ii) over the negatives."""

    def published(x):
        x = x / ops.norm(x, axis=-1, keepdims=True)
        scores = ops.matmul(x[:, 0], ops.transpose(x[:, 1])) / 0.5
        ratios = ops.exp(scores - ops.diagonal(scores)[:, None])
        xi = ops.sum(ratios * (1 - np.eye(4, dtype="float32")), axis=1)
        return xi / ops.stop_gradient(xi)

    value, (expected,) = value_and_gradient(published, texts(hard=0))
    np.testing.assert_allclose(value, 1.0)
    _, (gradient,) = value_and_gradient(lambda x: flat_nce(None, x, 0.5), texts(hard=0))
    assert relative_error(gradient, expected) < 1e-5


def test_gradient_does_not_fade():
    """The negative's share is 1 and the positive's -1, however far apart they are."""
    for gap in (1.0, 30.0, 300.0):
        vectors = np.array([1.0, gap, 0.0], "float32").reshape(1, 3, 1)
        value, (gradient,) = value_and_gradient(
            lambda x: flat_nce(None, x, 1.0, score="dot"), vectors
        )
        assert value.tolist() == [-gap]
        assert gradient[0, 1:, 0].tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("symmetric", [False, True])
def test_without_negatives_zero_and_nan_shows(symmetric):
    for groups, batch in ((np.array([4, 4, 4]), 3), (None, 1)):
        value, (gradient,) = value_and_gradient(
            lambda x, groups=groups: flat_nce(groups, x, symmetric=symmetric),
            texts(batch=batch, hard=0),
        )
        assert not value.any()
        assert not gradient.any()
    vectors = texts(batch=1, hard=0)
    vectors[0, 1] = np.nan
    assert np.isnan(ops.convert_to_numpy(flat_nce(None, vectors, symmetric=symmetric))).all()


def test_rows_of_weight_zero_are_absent():
    vectors, weights = texts(), np.array([1, 0, 1, 3], "float32")
    kept, loss = weights > 0, FlatNCE(symmetric=True)
    expected = float(loss(GROUPS[kept], vectors[kept], weights[kept]))
    vectors[1] = np.nan
    assert float(loss(GROUPS, vectors, weights)) == pytest.approx(expected, rel=1e-6)


def test_symmetric_is_the_mean_of_both_directions():
    vectors = texts(hard=0)
    forward, backward, both = (
        ops.convert_to_numpy(flat_nce(GROUPS, x, symmetric=symmetric))
        for x, symmetric in ((vectors, False), (vectors[:, ::-1].copy(), False), (vectors, True))
    )
    np.testing.assert_allclose(both, (forward + backward) / 2, rtol=1e-6)
