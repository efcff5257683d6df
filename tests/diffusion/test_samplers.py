import re

import keras
import numpy as np
import pytest
from keras import ops
from mixture import Mixture, sliced_wasserstein

from keras_ext import diffusion
from keras_ext.diffusion import (
    compiled,
    ddim,
    ddpm,
    edm_stochastic,
    ode_sample,
    schedules,
    sde_sample,
)
from keras_ext.diffusion.ode_steps import SOLVERS

GMM5 = Mixture()
COSINE = schedules.get("cosine")


def graph(function):
    """A user's own compiled function."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, autograph=False)


class Gaussian:
    """Data N(m, s^2 I): its denoiser and its average reverse variance."""

    def __init__(self, schedule, mean=0.7, std=0.4):
        self.schedule, self.mean, self.std = schedule, mean, std

    def __call__(self, x, t):
        alpha, beta = self.schedule.alpha_bar(t)[:, None], self.schedule.beta_bar(t)[:, None]
        return beta * (x - alpha * self.mean) / (alpha**2 * self.std**2 + beta**2)

    def sigma_bar2(self, t):
        alpha, beta = self.schedule.alpha_bar(t), self.schedule.beta_bar(t)
        return self.std**2 * beta**2 / (alpha**2 * self.std**2 + beta**2)


@pytest.mark.parametrize("name", ["linear_ho", "vp_continuous", "sub_vp", "ve"])
def test_ddim_of_a_gaussian_is_a_product(name, rng):
    schedule = schedules.get(name)
    gaussian, noise = Gaussian(schedule), rng.normal(size=(50, 3)) * schedule.beta_bar(1.0)
    noise = noise.astype("float32")
    for steps in (1, 7, 40):
        grid = schedule.grid(steps)
        sigma = np.append(schedule.sigma(grid[:-1]), 0.0)
        factors = 1 + np.diff(sigma) * sigma[:-1] / (0.4**2 + sigma[:-1] ** 2)
        expected = 0.7 + (noise / schedule.alpha_bar(1.0) - 0.7) * np.prod(factors)
        found = ddim(gaussian, schedule, noise, steps)
        # The last hop multiplies some roundings (6e-8) of x and eps by its sigma.
        # The state of "ve" is 100 times as large as its data, and so are its roundings.
        least = 3 if name == "ve" else 1
        np.testing.assert_allclose(found.x, expected, atol=1e-6 * max(least, 2 * sigma[-2]))
        assert found.calls == steps and found.trajectory is None


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_analytic_hops_reproduce_a_gaussian_for_any_number_of_steps(steps, eta, rng):
    gaussian, count = Gaussian(COSINE), 40000
    std = np.hypot(COSINE.alpha_bar(1.0) * 0.4, COSINE.beta_bar(1.0))
    noise = COSINE.alpha_bar(1.0) * 0.7 + std * rng.normal(size=(count, 1))
    options = {"eta": eta, "variance": gaussian, "final_noise": True, "seed": 1}
    x = ops.convert_to_numpy(ddim(gaussian, COSINE, noise, steps, **options).x)
    assert abs(x.mean() - 0.7) < 4 * 0.4 / np.sqrt(count)
    assert abs(x.var() / 0.16 - 1) < 4 * np.sqrt(2 / count)
    if eta == 1 and steps > 1:  # without it the variance is too small
        x = ops.convert_to_numpy(ddpm(gaussian, COSINE, noise, steps, seed=1).x)
        assert x.var() < 0.15


ORDERS = {
    "euler": 1,
    "heun": 2,
    "midpoint": 2,
    "rk4": 4,
    "dpmpp_2m": 2,
    "ab2": 2,
    "ab3": 3,
    "ab4": 4,
}


def test_solvers_converge_with_their_orders(rng):
    schedule, noise = schedules.get("vp_continuous"), rng.normal(size=(300, 2)).astype("float32")
    denoiser = GMM5.denoiser(schedule)
    reference = compiled(ode_sample, denoiser, schedule, 300, solver="rk4")(noise).x
    for solver, order in ORDERS.items():
        # The median: single trajectories change mode.
        errors = []
        for steps in (10, 20) if solver == "rk4" else (80, 160):
            found = compiled(ode_sample, denoiser, schedule, steps, solver=solver)(noise).x
            errors.append(np.median(np.linalg.norm(found - reference, axis=1)))
        assert abs(np.log2(errors[0] / errors[1]) - order) < 0.35, (solver, errors)
    found = ode_sample(denoiser, schedule, noise, 20, solver="rk45", tolerance=1e-5)
    assert np.median(np.linalg.norm(found.x - reference, axis=1)) < 1e-4


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["vp_continuous", "ve", "straight"])
def test_all_noise_levels_have_the_same_marginals(name, level, rng):
    schedule, data = schedules.get(name), GMM5.sample(4000, seed=1)
    noise = schedule.beta_bar(1.0) * rng.normal(size=(4000, 2))
    denoiser = GMM5.denoiser(schedule, "x0")
    options = {"noise_level": level, "prediction": "x0"}
    x = compiled(sde_sample, denoiser, schedule, 200, **options)(noise, seed=1).x
    # Two samples of the mixture differ by about 0.035.
    assert sliced_wasserstein(np.asarray(x), data) < 0.07


@pytest.mark.parametrize("name", ["vp_continuous", "cosine", "ve"])
def test_every_stochastic_sampler_ends_at_the_data(name, rng):
    schedule, data = schedules.get(name), GMM5.sample(4000, seed=1)
    noise = schedule.beta_bar(1.0) * rng.normal(size=(4000, 2))
    denoiser = GMM5.denoiser(schedule, "x0")
    for sampler, steps, options in [
        (sde_sample, 300, {"method": "euler_maruyama"}),
        (sde_sample, 300, {"method": "reverse_diffusion"}),
        (sde_sample, 100, {"corrector": diffusion.Langevin()}),
        (edm_stochastic, 50, {}),
    ]:
        sample = compiled(sampler, denoiser, schedule, steps, prediction="x0", **options)
        distance = sliced_wasserstein(np.asarray(sample(noise, seed=1).x), data)
        assert distance < 0.07, (options, distance)


def test_langevin_steps_go_to_the_marginal_of_their_level(rng):
    denoiser = Gaussian(COSINE)
    corrector = diffusion.Langevin(steps=300)
    options = {"corrector": corrector, "start": 0.5, "end": 0.4999, "denoise": False}
    x = compiled(sde_sample, denoiser, COSINE, 1, **options)(np.zeros((4000, 2)), seed=1).x
    alpha, beta = COSINE.alpha_bar(0.5), COSINE.beta_bar(0.5)
    std = np.hypot(alpha * denoiser.std, beta)
    assert abs(np.mean(x) - alpha * denoiser.mean) < 4 * std / np.sqrt(8000)
    assert abs(np.std(x) / std - 1) < 0.05  # steps have a length


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_seed_gives_the_same_eagerly_and_compiled(jit_compile, rng):
    noise, denoiser = rng.normal(size=(3, 2)).astype("float32"), GMM5.denoiser(COSINE)
    for sampler, options in [
        (ddim, {"eta": 0.7}),
        (sde_sample, {"corrector": diffusion.Langevin()}),
    ]:
        eager = sampler(denoiser, COSINE, noise, 6, seed=5, return_trajectory=True, **options)
        options = {"return_trajectory": True, "jit_compile": jit_compile, **options}
        graph = compiled(sampler, denoiser, COSINE, 6, **options)(noise, seed=5)
        np.testing.assert_allclose(graph.x, eager.x, atol=1e-4)
        np.testing.assert_allclose(graph.trajectory, eager.trajectory, atol=1e-4)
        assert graph.calls == eager.calls
        np.testing.assert_array_equal(eager.trajectory[0], noise)
        np.testing.assert_array_equal(eager.trajectory[-1], eager.x)
        other = sampler(denoiser, COSINE, noise, 6, seed=6)
        assert np.abs(other.x - eager.x).max() > 0.1


def test_without_churn_the_stochastic_sampler_is_heun(rng):
    noise, denoiser = rng.normal(size=(4, 2)).astype("float32"), GMM5.denoiser(COSINE)
    settings = {"prediction": "eps", "spacing": list(np.linspace(0.9, 0.0, 7))}
    plain = compiled(edm_stochastic, denoiser, COSINE, 6, churn=0.0, **settings)(noise)
    heun = compiled(ode_sample, denoiser, COSINE, 6, start=0.9, end=0.0, **settings)(noise)
    np.testing.assert_allclose(plain.x, heun.x, atol=1e-5)


def test_the_big_variance_goes_with_the_mean_of_ddpm(rng):
    noise, denoiser = rng.normal(size=(4, 2)).astype("float32"), GMM5.denoiser(COSINE)
    with pytest.raises(ValueError, match="Expected eta=1"):
        ddim(denoiser, COSINE, noise, 3, variance="big")
    pinned = ddpm(denoiser, COSINE, noise, 3, 1.0, "eps", "trailing", None, 5).x
    np.testing.assert_array_equal(pinned, ddim(denoiser, COSINE, noise, 3, eta=1.0, seed=5).x)


def test_samples_do_not_depend_on_each_other(rng):
    noise, denoiser = rng.normal(size=(4, 2)).astype("float32"), GMM5.denoiser(COSINE)
    changed = np.concatenate([noise[:2], noise[2:] + 1.0])
    for sampler, options in [
        (ddpm, {}),
        (sde_sample, {"corrector": diffusion.Langevin()}),
        (ode_sample, {"solver": "rk45", "start": 0.98}),
    ]:
        sample = compiled(sampler, denoiser, COSINE, 5, **options)
        whole = sample(noise, seed=1).x
        for other in (changed, noise[:2])[: 2 if sampler is not ode_sample else 1]:
            part = sample(other, seed=1).x
            np.testing.assert_allclose(part[:2], whole[:2], atol=1e-4)  # other roundings


def test_encoded_images_come_back(rng):
    x = GMM5.sample(40, seed=2).astype("float32")
    denoiser = GMM5.denoiser(COSINE)
    codes = compiled(diffusion.ddim_encode, denoiser, COSINE, 60, iterations=8)(x).x
    again = compiled(ddim, denoiser, COSINE, 60)(codes).x
    assert np.median(np.abs(again - x)) < 1e-5
    between = diffusion.interpolate(
        Gaussian(COSINE), COSINE, x[:3], x[3:6], 10, [0.0, 1.0], iterations=8
    )
    np.testing.assert_allclose(between.x, [x[:3], x[3:6]], atol=1e-3)


def test_codes_bring_an_image_back(rng):
    x = GMM5.sample(40, seed=2).astype("float32")
    denoiser = GMM5.denoiser(COSINE)
    codes = diffusion.ddcm_encode(denoiser, COSINE, x, 10, seed=3)
    found = diffusion.ddcm_decode(denoiser, COSINE, codes, (2,), seed=3)
    drawn = diffusion.ddcm_sample(denoiser, COSINE, (40, 2), 10, seed=3, code_seed=1)
    assert np.abs(found.x - x).mean() < 0.15 < 0.5 < np.abs(drawn.x - x).mean()


def test_numpy_half_precision_and_conditions(rng):
    noise = rng.normal(size=(5, 2)).astype("float32")
    exact = ddim(GMM5.denoiser(COSINE), COSINE, noise, 10).x
    found = ddim(GMM5.denoiser(COSINE, xp=np), COSINE, noise, 10)
    assert np.median(np.abs(found.x - exact)) < 1e-4  # one sample is near a border of modes

    # Not eps: its rounding is multiplied by sigma, 20,000 at first.
    def half(x, t, scale):
        return ops.cast(scale * GMM5.denoiser(COSINE, "v")(x, t), "float16")

    found = ddim(half, COSINE, noise, 10, prediction="v", conditions={"scale": 1.0}).x
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert np.median(np.abs(found - exact)) < 0.01


def test_a_nan_names_its_step(rng):
    def denoiser(x, t):
        return ops.where(t[:, None] < 0.65, np.nan, 1.0) * x

    noise = rng.normal(size=(2, 2)).astype("float32")
    for run in (ddim, sde_sample, ode_sample):
        options = {"spacing": "trailing"}
        with pytest.raises(ValueError, match="step (3|4)"):
            run(denoiser, COSINE, noise, 10, **options)
        with pytest.raises(ValueError, match="step (3|4)"):
            compiled(run, denoiser, COSINE, 10, **options)(noise)


def test_a_nan_that_the_bounds_hide_is_seen_in_a_graph(rng):
    def denoiser(x, t):
        return ops.where(t[:, None] < 0.65, np.nan, 1.0) * x

    @graph
    def sample(noise):
        return ddim(denoiser, COSINE, noise, 10, clip_x0=(-1.0, 1.0)).x

    assert np.isnan(sample(rng.normal(size=(2, 2)).astype("float32"))).all()


def test_the_step_of_a_nan_in_rounds_of_their_own_length(rng):
    def denoiser(x, t):
        return ops.where(t[:, None] < 1e-3, np.nan, 1.0) * GMM5.denoiser(COSINE)(x, t)

    noise = rng.normal(size=(2, 2)).astype("float32")
    fine = ode_sample(GMM5.denoiser(COSINE), COSINE, noise, 10, solver="rk45", start=0.9, end=2e-3)
    with pytest.raises(ValueError, match="first at step") as caught:
        ode_sample(denoiser, COSINE, noise, 10, solver="rk45", start=0.9, end=1e-4)
    step = int(re.search("step ([0-9]+)", str(caught.value))[1])
    assert (fine.calls - 2) / 6 - 3 < step < (fine.calls - 2) / 6 + 6


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX draws nothing in a graph")
def test_without_a_seed_a_graph_draws_anew_at_each_call(rng):
    noise = rng.normal(size=(2, 2)).astype("float32")
    sample = graph(lambda noise: ddpm(GMM5.denoiser(COSINE), COSINE, noise, 5).x)
    assert np.abs(sample(noise) - sample(noise)).min() > 0


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX knows all shapes")
def test_codes_of_a_batch_of_unknown_size(rng):
    import tensorflow as tf

    def encode(x):
        return diffusion.ddcm_encode(GMM5.denoiser(COSINE), COSINE, x, 5, seed=3)

    x = GMM5.sample(4, seed=2).astype("float32")
    unknown = tf.function(encode, input_signature=[tf.TensorSpec((None, 2))], autograph=False)
    np.testing.assert_array_equal(unknown(x), encode(x))


def test_what_is_refused(rng):
    noise, fine = rng.normal(size=(2, 2)), GMM5.denoiser(COSINE)
    nan = np.full((2, 2), np.nan)
    for arguments, options, words in [
        ((nan, 5), {}, "finite noise"),
        ((np.ones((2, 2), "int32"), 5), {}, "float dtype"),
        ((np.ones(3), 5), {}, "shape"),
        ((np.ones((0, 3)), 5), {}, "at least one sample"),
        ((noise, 0), {}, "steps"),
        ((noise, 1001), {}, "1000 steps"),
        ((noise, 5), {"prediction": "noise"}, "eps, x0"),
        ((noise, 5), {"eta": -1.0}, "eta"),
        ((noise, 5), {"variance": 0.3}, "sigma_bar2"),
        ((noise, 5), {"variance": Gaussian(schedules.get("ve"))}, "another schedule"),
    ]:
        with pytest.raises(ValueError, match=words):
            ddim(fine, COSINE, *arguments, **options)
    with pytest.raises(ValueError, match="none of it is left"):
        ode_sample(fine, "straight", noise, 5)
    with pytest.raises(ValueError, match=", ".join(SOLVERS[:3])):
        ode_sample(fine, COSINE, noise, 5, solver="leapfrog")
    with pytest.raises(ValueError, match="shape of its input"):
        ddim(lambda x, t: x[:, :1], COSINE, noise, 5)
