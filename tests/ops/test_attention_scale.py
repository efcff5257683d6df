import math

import numpy as np
import pytest
from gradients import to_numpy, value_and_gradient
from keras import ops

from keras_ext.ops.attention_scale import (
    Cosine,
    GradMax,
    LogN,
    get_attention_scale,
    scale_query_and_key,
)

KEYS = np.array([0.0, 1.0, 2.0, 16.0, 64.0, 512.0, 4096.0, 1e6], "float32")


def test_log_n_is_the_usual_scale_at_the_length_of_training():
    scale = to_numpy(LogN(train_length=64, min_length=4)(KEYS, 25))
    expected = [math.log(max(n, 4)) / math.log(64) / 5 for n in KEYS]
    np.testing.assert_allclose(scale, expected, rtol=1e-6)
    assert scale[4] == pytest.approx(1 / 5)
    clipped = to_numpy(LogN(train_length=64, clip=True)(KEYS, 25))
    np.testing.assert_allclose(clipped[:5], 1 / 5, rtol=1e-6)
    np.testing.assert_allclose(clipped[5:], scale[5:], rtol=1e-6)


def test_log_n_holds_the_entropy_of_normal_scores():
    rng = np.random.default_rng(0)

    def entropy(keys, factor):
        scores = 3 * rng.normal(size=(200, keys)) * factor
        weights = np.exp(scores - scores.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        return -(weights * np.log(weights + 1e-300)).sum(1).mean()

    growth = entropy(4096, 1.0) - entropy(512, 1.0)
    held = entropy(4096, float(LogN()(4096.0, 1))) - entropy(512, float(LogN()(512.0, 1)))
    assert growth > 1.2 and abs(held) < 0.3


def test_grad_max_solves_its_equation():
    a = to_numpy(GradMax()(KEYS, 1)).astype("float64")
    np.testing.assert_allclose(np.exp(a**2) * (1 + 2 * a**2), np.maximum(KEYS, 1), rtol=2e-5)
    np.testing.assert_allclose(to_numpy(GradMax()(KEYS, 64)), a / 8, rtol=1e-6)


def test_grad_max_maximises_the_bound():
    a = float(GradMax()(512.0, 1))
    grid = np.linspace(0.5, 4, 3501)
    assert grid[np.argmax(grid * (1 - np.exp(grid**2) / 512))] == pytest.approx(a, abs=2e-3)


def test_cosine_forgets_the_lengths():
    rng = np.random.default_rng(1)
    query, key = rng.normal(size=(2, 2, 3, 2, 6))
    q, k = scale_query_and_key(9 * query, key / 7, Cosine(temperature=0.1), 3.0)
    expected = query / np.linalg.norm(query, axis=-1, keepdims=True)
    np.testing.assert_allclose(to_numpy(q), 10 * expected, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(to_numpy(k), axis=-1), 1.0, rtol=1e-5)


def test_cosine_of_a_zero_vector_is_zero_with_a_finite_gradient():
    def score(query):
        q, k = scale_query_and_key(query, query, Cosine(), 1.0)
        return ops.sum(q * k, axis=-1)

    value, (gradient,) = value_and_gradient(score, np.zeros((1, 2, 4), "float32"))
    np.testing.assert_array_equal(value, 0.0)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("heads", [(), (2,)])
def test_each_row_is_scaled_by_what_it_sees(heads):
    query = np.ones((2, 3, *heads, 4), "float32")
    keys = np.array([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]], "float32")
    q, k = scale_query_and_key(query, query, lambda n, d: n / d, keys)
    expected = keys.reshape(2, 3, *(1 for _ in heads), 1) / 4 * query
    np.testing.assert_allclose(to_numpy(q), expected)
    np.testing.assert_array_equal(to_numpy(k), query)


def test_every_name_has_its_meaning():
    assert get_attention_scale(True)(9.0, 16) == 0.25
    assert get_attention_scale("sqrt_dim")(9.0, 16) == 0.25
    assert get_attention_scale(False) == 1.0 == get_attention_scale(1)
    assert get_attention_scale(0.5) == 0.5
    for name, cls in (("log_n", LogN), ("grad_max", GradMax), ("cosine", Cosine)):
        assert isinstance(get_attention_scale(name), cls)


@pytest.mark.parametrize("identifier", ["logn", None, math.nan, math.inf, [1.0]])
def test_an_unknown_scale_is_refused(identifier):
    with pytest.raises(ValueError, match="Unknown scale of attention.*Received"):
        get_attention_scale(identifier)


def test_bad_settings_are_refused():
    for arguments in ({"train_length": 1}, {"min_length": 0}):
        with pytest.raises(ValueError, match="Received: train_length="):
            LogN(**arguments)
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="must be above 0. Received: temperature="):
            Cosine(temperature)
