import keras
import numpy as np
import pytest
from gradients import differentiated, numerical_gradient, relative_error, value_and_gradient
from keras import ops
from scipy.spatial.distance import cosine

from keras_ext.ops import angle_scores, cosine_scores, dot_scores, score_function, unit_vectors

SCORES = [cosine_scores, angle_scores, dot_scores]


def vectors_of(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def angle(first, second):
    """One score of AnglE in float64: the complex quotient that its paper writes."""
    half = len(first) // 2
    z, w = (x[:half].astype("float64") + 1j * x[half:] for x in (first, second))
    quotient = (z * w.conj()).sum() / (np.abs(w) ** 2).sum()
    quotient /= np.linalg.norm(z) / np.linalg.norm(w)
    return abs(quotient.real + quotient.imag)


def test_values_equal_the_formulas():
    first, second = vectors_of(5, 6), vectors_of(5, 6, seed=1)
    rows = list(zip(first, second, strict=True))
    truths = {
        cosine_scores: [1 - cosine(x, y) for x, y in rows],
        angle_scores: [angle(x, y) for x, y in rows],
        dot_scores: [np.dot(x.astype("float64"), y) for x, y in rows],
    }
    for score, truth in truths.items():
        assert relative_error(np.array(score(first, second)), truth) < 1e-6
        leading = np.array(score(first[None], second[None]))
        np.testing.assert_allclose(leading, np.array(truth)[None], rtol=1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_gradients_equal_finite_differences(score):
    """The float64 side is the formula on directions, by NumPy."""
    first, second = vectors_of(4, 6), vectors_of(4, 6, seed=1)
    truth = {
        dot_scores: lambda x: (x * second).sum(1),
        cosine_scores: lambda x: np.array(
            [1 - cosine(a, b) for a, b in zip(x, second, strict=True)]
        ),
        angle_scores: lambda x: np.array([angle(a, b) for a, b in zip(x, second, strict=True)]),
    }[score]
    _, (gradient, _) = value_and_gradient(score, first, second)
    assert relative_error(gradient, numerical_gradient(truth, first)) < 1e-5


@pytest.mark.parametrize("compiled", [False, True])
def test_unit_vectors_of_any_length(compiled):
    """1e30 and 1e-30 are lengths like any other, where a sum of squares overflows or vanishes."""
    vectors, upstream = vectors_of(3, 4), vectors_of(3, 4, seed=1)
    function = differentiated(lambda x: unit_vectors(x) * upstream, compiled)
    value, (gradient,) = function(vectors)
    truth = vectors.astype("float64")
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    for length in (1.0, 1e30, 1e-30):
        scaled, (of_scaled,) = function((length * vectors).astype("float32"))
        assert relative_error(scaled / upstream, truth) < 1e-6
        assert relative_error(of_scaled * length, gradient) < 1e-5  # a derivative by length x
    assert relative_error(value / upstream, truth) < 1e-6


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("score", [cosine_scores, angle_scores])
def test_vectors_of_zeros_have_no_direction(score, compiled):
    first, second = vectors_of(3, 4), vectors_of(3, 4, seed=1)
    first[0], second[1], first[2], second[2] = 0.0, 0.0, 0.0, 0.0
    value, gradients = value_and_gradient(score, first, second, compiled=compiled)
    assert not value.any()
    for vectors, gradient in zip((first, second), gradients, strict=True):
        assert np.isfinite(gradient).all()
        assert not gradient[~vectors.any(axis=1)].any()


def test_denormal_vectors_are_finite():
    value, (gradient,) = value_and_gradient(unit_vectors, np.full((1, 4), 1e-40, "float32"))
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()


def test_nan_shows():
    vectors = vectors_of(2, 4)
    vectors[0, 1] = np.nan
    for score in SCORES:
        value = np.array(score(vectors, vectors_of(2, 4, seed=1)))
        assert np.isnan(value).tolist() == [True, False]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    first, second = (ops.cast(300.0 * vectors_of(5, 6, seed=seed), dtype) for seed in (0, 1))
    rounded = [ops.convert_to_numpy(ops.cast(x, "float32")) for x in (first, second)]
    for score in SCORES:
        value = score(first, second)
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        assert relative_error(np.array(value), np.array(score(*rounded))) < 1e-6


def test_known_angles():
    """A vector with itself gives 1, turned by a quarter in the complex plane 1, by an eighth more."""
    x = np.array([[1.0, 0.0]], "float32")
    for degrees, expected in ((0, 1.0), (45, np.sqrt(2)), (90, 1.0), (135, 0.0), (180, 1.0)):
        turned = np.array([[np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]], "float32")
        assert float(angle_scores(turned, x)[0]) == pytest.approx(expected, abs=1e-6)


def test_score_function_by_name():
    assert score_function("cosine") is cosine_scores
    assert score_function("angle") is angle_scores
    assert score_function(max) is max
    with pytest.raises(ValueError, match="Received: score='euclidean'"):
        score_function("euclidean")
    with pytest.raises(ValueError, match="even.*Received: 3 dimensions"):
        angle_scores(np.ones((2, 3)), np.ones((2, 3)))
