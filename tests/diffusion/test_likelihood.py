import math

import keras
import numpy as np
import pytest
from keras import ops
from mixture import Mixture

from keras_ext.diffusion import (
    ClassifierFreeGuidance,
    bits_per_dimension,
    compiled,
    dequantize,
    log_likelihood,
    schedules,
)
from keras_ext.diffusion.autodiff import value_and_trace

VP = schedules.get("vp_continuous")
GMM5 = Mixture()


def solved(denoiser, schedule, x, steps=50, seed=None, conditions=None, **options):
    """The likelihood by a compiled function."""
    run = compiled(log_likelihood, denoiser, schedule, steps, **options)
    return np.asarray(run(x.astype("float32"), seed=seed, conditions=conditions).x)


def test_the_mixture_within_2e_3_nat():
    x = GMM5.sample(1000, seed=1)
    error = solved(GMM5.denoiser(VP), VP, x) - GMM5.log_density(x)
    # 1.2e-3 and 1e-4: what is left is the normal distribution at the end, not the solver.
    assert np.abs(error).mean() < 2e-3 and abs(error.mean()) < 5e-4


@pytest.mark.parametrize(
    ("name", "prediction", "start"),
    [
        ("vp_continuous", "score", 1.0),
        ("sub_vp", "eps", 1.0),
        ("cosine", "v", 1.0),
        ("linear_ho", "x0", 1.0),
        ("ve", "eps", 1.0),
        ("edm", "x0", 1.0),
        ("straight", "velocity", 1.0),
        ("straight", "eps", 0.999),
    ],
)
def test_gaussian_data_in_closed_form(name, prediction, start, rng):
    # The equation carries N(alpha m, S^2), S^2 = alpha^2 s^2 + beta^2, along by stretching it.
    m, s, schedule = 0.7, 0.4, schedules.get(name)
    x = m + s * rng.normal(size=(20, 3))
    alpha, beta = schedule.levels(np.array([1e-5, start]))
    width = np.hypot(alpha * s, beta)
    end = alpha[1] * m + width[1] / width[0] * (x - alpha[0] * m)
    expected = -0.5 * np.sum(end**2, axis=1) / beta[1] ** 2
    expected += 3 * (np.log(width[1] / width[0] / beta[1]) - 0.5 * np.log(2 * np.pi))
    denoiser = Mixture([[m] * 3], [1.0], s).denoiser(schedule, prediction)
    found = solved(denoiser, schedule, x, prediction=prediction, start=start)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_hutchinson_is_unbiased_and_its_spread_falls():
    x = np.repeat(GMM5.sample(1, seed=3), 2000, axis=0)
    denoiser = GMM5.denoiser(VP)
    exact = solved(denoiser, VP, x[:1], 20)[0]
    spread = []
    for probes in (1, 9):
        found = solved(denoiser, VP, x, 20, 1, divergence="hutchinson", probes=probes)
        spread.append(found.std())
        assert abs(found.mean() - exact) < 4 * spread[-1] / math.sqrt(2000)
    assert spread[0] > 0.01
    assert spread[0] / spread[1] == pytest.approx(3.0, rel=0.15)


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_eagerly_compiled_and_in_parts_it_is_the_same(divergence):
    x = GMM5.sample(4, seed=2).astype("float32")
    denoiser, options = GMM5.denoiser(VP), {"divergence": divergence}
    options |= {"probes": 3} if divergence == "hutchinson" else {}
    eager = log_likelihood(denoiser, VP, x, 2, seed=5, **options)
    assert tuple(eager.shape) == (4,) and keras.backend.standardize_dtype(eager.dtype) == "float32"
    for jit_compile in (False, True) if divergence == "exact" else (True,):
        found = solved(denoiser, VP, x, 2, 5, jit_compile=jit_compile, **options)
        np.testing.assert_allclose(found, eager, rtol=1e-5, atol=1e-4)
    part = log_likelihood(denoiser, VP, x[:2], 2, seed=5, **options)
    np.testing.assert_allclose(part, eager[:2], rtol=1e-5, atol=1e-4)
    other = log_likelihood(denoiser, VP, x, 2, seed=6, **options)
    assert (np.abs(other - eager).max() > 1e-3) == (divergence == "hutchinson")


def test_the_likelihood_of_images_given_a_condition(rng):
    # (b, 2, 2, 1), each class a normal distribution around its number.
    def denoiser(x, t, label):
        alpha, beta = (ops.reshape(f(t), (-1, 1, 1, 1)) for f in (VP.alpha_bar, VP.beta_bar))
        mean = ops.reshape(ops.cast(label, "float32"), (-1, 1, 1, 1))
        return beta * (x - alpha * mean) / (alpha**2 * 0.09 + beta**2)

    label = np.array([0, 1, 1], "int32")
    x = (label[:, None, None, None] + 0.3 * rng.normal(size=(3, 2, 2, 1))).astype("float32")
    expected = -0.5 * np.sum((x - label[:, None, None, None]) ** 2, axis=(1, 2, 3)) / 0.09
    expected -= 4 * np.log(0.3 * np.sqrt(2 * np.pi))
    for each in (denoiser, ClassifierFreeGuidance(denoiser, 1.0, {"label": 0})):
        found = solved(each, VP, x, conditions={"label": label})
        np.testing.assert_allclose(found, expected, atol=0.1)  # the end is off by alpha = 0.0066


def test_a_trace_is_that_of_the_jacobian(rng):
    matrix = rng.normal(size=(6, 6)).astype("float32")
    x = ops.convert_to_tensor(rng.normal(size=(5, 2, 3)).astype("float32"))

    def function(x):
        return ops.reshape(ops.tanh(ops.matmul(ops.reshape(x, (-1, 6)), matrix)), (-1, 2, 3))

    def unit(i):
        return ops.broadcast_to(ops.reshape(ops.one_hot(i, 6), (1, 2, 3)), (5, 2, 3))

    y, trace = value_and_trace(function, x, unit, 6)
    np.testing.assert_allclose(y, function(x))
    slopes = 1 - np.asarray(y).reshape(5, 6) ** 2
    np.testing.assert_allclose(trace, slopes @ np.diag(matrix), rtol=1e-4, atol=1e-5)


def test_variables_are_read_anew(rng):
    dense = keras.layers.Dense(2)
    dense.build((None, 2))

    class Network(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = dense

        def call(self, x, t):
            return self.dense(x)

    network, x = Network(), rng.normal(size=(3, 2)).astype("float32")
    run = compiled(log_likelihood, network, VP, 3)
    for _ in range(2):
        dense.kernel.assign(0.3 * rng.normal(size=(2, 2)))
        eager = log_likelihood(network, VP, x, 3)
        np.testing.assert_allclose(run(x).x, eager, rtol=1e-4)


@pytest.mark.parametrize(
    ("levels", "data_range"), [(256, (-1.0, 1.0)), (17, (0.0, 1.0)), (2, (3, 9))]
)
def test_uniform_levels_take_log2_of_their_number_of_bits(levels, data_range, rng):
    images = rng.integers(0, levels, size=(200, 8, 8))
    x = dequantize(images, levels, data_range, seed=1)
    low, high = data_range
    half = 0.5 * (high - low) / (levels - 1)
    assert x.dtype == np.float32 and x.min() >= low - half and x.max() <= high + half
    back = (x - low) / (high - low) * (levels - 1)
    assert np.mean(np.round(back) != images) < 1e-3  # in float32 some are on the border
    assert abs((back - images).mean()) < 4 / np.sqrt(12 * x.size)
    assert (back - images).var() == pytest.approx(1 / 12, rel=0.03)
    nats = np.full(200, -64 * np.log(high - low + 2 * half))  # uniform on all cells
    bits = bits_per_dimension(nats, (8, 8), levels, data_range)
    np.testing.assert_allclose(bits, np.log2(levels), rtol=1e-12)
    tensor = bits_per_dimension(ops.convert_to_tensor(nats), (8, 8), levels, data_range)
    np.testing.assert_allclose(tensor, bits, rtol=1e-5)


def test_bits_of_normal_levels_are_the_entropy_of_the_levels(rng):
    s = 0.2
    values = np.round(127.5 * (1 + s * rng.normal(size=(20000, 1)))).clip(0, 255)
    x = dequantize(values, seed=2)
    nats = -0.5 * (x[:, 0] / s) ** 2 - np.log(s * np.sqrt(2 * np.pi))
    edges = (np.arange(257) - 0.5) / 127.5 - 1
    cumulative = np.array([0.5 * math.erfc(-edge / s / math.sqrt(2)) for edge in edges])
    exact = -np.log2(np.diff(cumulative))[values[:, 0].astype(int)].mean()
    # Jensen's inequality: above, by little where cells are small.
    assert 0 < bits_per_dimension(nats.mean(), (1,)) - exact + 2e-3 < 4e-3


def test_what_is_refused(rng):
    x, fine = GMM5.sample(2).astype("float32"), GMM5.denoiser(VP)
    nan = np.full((2, 2), np.nan)

    def broken(x, t):
        return ops.where(t[:, None] > 0.3, np.nan, 1.0) * x

    for make, words in [
        (lambda: log_likelihood(fine, VP, nan), "finite x"),
        (lambda: log_likelihood(fine, VP, np.ones((2, 2), "int32")), "float dtype"),
        (lambda: log_likelihood(fine, VP, x, 0), "steps"),
        (lambda: log_likelihood(fine, VP, x, prediction="noise"), "eps, x0"),
        (lambda: log_likelihood(fine, VP, x, divergence="trace"), "exact, hutchinson"),
        (lambda: log_likelihood(fine, VP, x, probes=3), "hutchinson"),
        (lambda: log_likelihood(fine, VP, x, divergence="hutchinson", probes=0), "probes"),
        (lambda: log_likelihood(fine, VP, x, end=0.0), "0 < end"),
        (lambda: log_likelihood(fine, "straight", x), "none of it is left"),
        (lambda: log_likelihood(broken, VP, x, 10), "step 5"),
        (lambda: solved(broken, VP, x, 10), "step 5"),
        (lambda: dequantize([[0.5]]), "integers"),
        (lambda: dequantize([[17]], 17), "0 to levels - 1 = 16"),
        (lambda: dequantize([[np.nan]]), "integers"),
        (lambda: dequantize([["a"]]), "integers"),
        (lambda: dequantize([[1]], 1), "levels"),
        (lambda: dequantize([[1]], 8, (1, 1)), "rises"),
        (lambda: bits_per_dimension(0.0, (0,)), "shape"),
    ]:
        with pytest.raises(ValueError, match=words):
            make()
    if keras.config.backend() == "tensorflow":
        with pytest.raises(ValueError, match="No gradient"):
            log_likelihood(lambda x, t: np.asarray(x), VP, x)
