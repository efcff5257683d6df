import math

import keras
import numpy as np
import pytest
from keras import ops
from mixture import Mixture
from scipy.special import betaincinv

from keras_ext.diffusion import (
    DenoisingDiffusion,
    PoissonFlow,
    compiled,
    ode_sample,
    poisson_kernel,
)
from keras_ext.diffusion.noise import seed_pair
from keras_ext.diffusion.poisson_levels import own_levels, own_times
from keras_ext.diffusion.poisson_noise import lengths, log_density_of_noise, poisson_noise
from keras_ext.models import MLPDenoiser
from keras_ext.optimizers import GuardedLossScale

INF = math.inf


def small(D=1, dtype=None, num_classes=None, hidden=8, seed=0, **arguments):
    keras.utils.set_random_seed(1)
    network = MLPDenoiser(2, hidden, num_layers=1, num_classes=num_classes, dtype=dtype)
    rng = np.random.default_rng(0)
    for weight in network.trainable_variables:  # the last ones begin as 0
        weight.assign(rng.normal(size=weight.shape, scale=0.3))
    return PoissonFlow(network, D, seed=seed, **arguments)


def points(count=64, seed=0):
    return np.random.default_rng(seed).normal(0.3, 0.5, (count, 2)).astype("float32")


def numpy(x):
    return ops.convert_to_numpy(x)


# === The noise ===
@pytest.mark.parametrize(
    ("size", "D"), [(1, 1), (2, 1), (2, 128), (64, 1), (3072, 1), (3072, 2048), (1, 3.5), (2, 1e7)]
)
def test_lengths_are_quantiles_of_the_beta_distribution(size, D):
    low = np.array([1e-6, 1e-4, *np.linspace(0.01, 0.5, 50)], "float32")
    share = betaincinv(size / 2, D / 2, low.astype("float64"))
    np.testing.assert_allclose(
        numpy(lengths(low, size, D)), np.sqrt(D * share / (1 - share)), rtol=1e-4
    )
    high = np.float32(1) - low  # 1 - B is of Beta(D/2, d/2)
    rest = betaincinv(D / 2, size / 2, 1 - high.astype("float64"))
    np.testing.assert_allclose(
        numpy(lengths(high, size, D)), np.sqrt(D * (1 - rest) / rest), rtol=1e-4
    )


def test_lengths_in_the_plane_are_those_in_closed_form():
    shares = np.linspace(0.001, 0.999, 101).astype("float32")
    expected = np.sqrt((1 - shares.astype("float64")) ** -2 - 1)
    np.testing.assert_allclose(numpy(lengths(shares, 2, 1)), expected, rtol=1e-4)


@pytest.mark.parametrize("D", [1, 3, 128])
def test_noise_has_its_lengths_and_all_directions(D):
    noise = numpy(poisson_noise(seed_pair(3), 0, (40000, 3), D)).astype("float64")
    length = np.linalg.norm(noise, axis=-1)
    for share in (0.1, 0.5, 0.9, 0.99):
        quantile = float(lengths(np.array([share], "float32"), 3, D)[0])
        assert abs(np.mean(length < quantile) - share) < 4 * np.sqrt(share * (1 - share) / 40000)
    unit = noise / length[:, None]
    assert np.abs(unit.mean(0)).max() < 4 / np.sqrt(3 * 40000)
    np.testing.assert_allclose(unit.T @ unit / 40000, np.eye(3) / 3, atol=0.01)
    assert abs(np.corrcoef(np.log(length), unit[:, 0])[0, 1]) < 0.02
    # Alone it is what it is among others, and in two axes what it is in one.
    few = numpy(poisson_noise(seed_pair(3), 0, (2, 3, 1), D))
    np.testing.assert_allclose(few[..., 0], noise[:2], rtol=1e-6)


def test_what_is_cut_off_is_the_longest_share():
    noise = numpy(poisson_noise(seed_pair(0), 0, (20000, 2), 1, 0.99))
    length = np.linalg.norm(noise, axis=-1)
    assert 90 < length.max() <= np.sqrt(0.01**-2 - 1) * 1.0001
    full = numpy(poisson_noise(seed_pair(0), 0, (20000, 2), 1))
    assert np.linalg.norm(full, axis=-1).max() > 1000


def test_noise_becomes_normal_as_D_grows():
    shares = np.linspace(0.01, 0.99, 50).astype("float32")
    expected = np.sqrt(-2 * np.log1p(-shares.astype("float64")))  # Rayleigh
    for D in (1e3, 1e6):
        found = numpy(lengths(shares, 2, D))
        np.testing.assert_allclose(found, expected, rtol=3 / D + 3e-5)
    x = points(50, 1)
    normal = -0.5 * np.sum(x**2, -1) - np.log(2 * np.pi)
    np.testing.assert_allclose(numpy(log_density_of_noise(x, INF)), normal, rtol=1e-5)
    np.testing.assert_allclose(numpy(log_density_of_noise(x, 1e6)), normal, rtol=1e-4)


# === The model ===
def naive_losses(flow, x, D, edm=False):
    """Times, noise, prediction and loss in NumPy; with `edm` as in that paper."""
    golden = 0.5 * (5**0.5 - 1)
    t = 1 - 0.999 * np.mod(0.5 + golden * np.arange(16), 1.0)
    sigma = (0.01 ** (1 / 7) + t * (20 ** (1 / 7) - 0.01 ** (1 / 7))) ** 7
    noise = numpy(poisson_noise(seed_pair(0), 0, (16, 2), D))
    noisy, sigma = x + sigma[:, None] * noise, sigma[:, None]
    squares = np.sum(noisy**2, -1, keepdims=True)
    mean = sigma**2 if edm else (squares + D * sigma**2) / (2 + D)
    inputs = {"x": noisy / np.sqrt(1 + mean), "t": t}
    value = numpy(flow.network({name: each.astype("float32") for name, each in inputs.items()}))
    variance = sigma**2 if edm else sigma ** min(D, 2)
    held = noisy
    if not edm:
        longest = np.sqrt(2 * (4 + D * sigma**2))
        held = noisy * np.minimum(1, longest / np.sqrt(squares))
    skip = 0.25 / (0.25 + variance)
    out = 0.5 * np.sqrt(variance) / np.sqrt(0.25 + variance)
    error = np.mean((skip * held + out * value - x) ** 2, -1)
    return error * (variance[:, 0] + 0.25) / (0.25 * variance[:, 0])


@pytest.mark.parametrize("D", [1, 1.5, 128])
def test_the_loss_is_that_of_a_naive_reference(D):
    flow, x = small(D, low=0.01, high=20.0), points(16)
    losses = numpy(flow(x, training=False))
    np.testing.assert_allclose(losses, naive_losses(flow, x, D), rtol=2e-3)


def first_of(model, count, seed):
    """What sampling begins with."""
    states = model.sample(count, steps=1, seed=seed, return_trajectory=True).trajectory
    return numpy(states)[0]


def test_without_tails_it_is_the_model_of_edm():
    flow, x = small(INF, low=0.01, high=20.0), points(16)
    losses = numpy(flow(x, training=False))
    np.testing.assert_allclose(losses, naive_losses(flow, x, INF, edm=True), rtol=2e-3)
    # So it is with D beyond all: the lengths alone are drawn otherwise.
    np.testing.assert_allclose(
        naive_losses(flow, x, 1e9), numpy(small(1e9, low=0.01, high=20.0)(x)), rtol=2e-3
    )
    normal = DenoisingDiffusion(flow.network, flow.schedule, "x0", seed=0)
    np.testing.assert_array_equal(first_of(flow, 9, 5), first_of(normal, 9, 5))
    assert np.isfinite(flow.log_likelihood(x[:2], steps=2)).all()


@pytest.mark.parametrize("D", [1, 2, 64])
def test_what_the_network_sees_is_bounded(D):
    flow, t = small(D), ops.convert_to_tensor(np.linspace(0, 1, 5, dtype="float32"))
    for far in (1.0, 1e6, 1e12):
        x = ops.convert_to_tensor(np.full((5, 2), far, "float32"))
        seen = numpy(ops.sum(flow._scaled(x, t) ** 2, axis=-1))
        assert np.isfinite(seen).all() and seen.max() <= (2 + D) * 1.001
    losses = numpy(flow(points(4096), training=True))
    assert np.isfinite(losses).all() and np.mean(losses) < 30


def mixture_field(mixture, schedule, count=4000):
    """The velocity of many points of a mixture."""
    data = mixture.sample(count, seed=5).astype("float32")
    return poisson_kernel(1, schedule).field(data)


@pytest.mark.slow
def test_training_learns_the_mean_of_the_data():
    mixture = Mixture(std=0.3)
    keras.utils.set_random_seed(0)
    flow = PoissonFlow(MLPDenoiser(2, 64, num_layers=2), D=1, seed=0)
    rate = keras.optimizers.schedules.CosineDecay(5e-3, 600)
    flow.compile(keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.99))
    x = mixture.sample(12000, seed=1).astype("float32")
    flow.fit(x, batch_size=400, epochs=20, verbose=0)
    velocity = mixture_field(mixture, flow.schedule)
    for t in (0.3, 0.5, 0.7):
        times = np.full(200, t, "float32")
        sigma = float(flow.schedule.beta_bar(t))
        noise = numpy(poisson_noise(seed_pair(7), 0, (200, 2), 1, 0.8))  # where data are
        clean = mixture.sample(200, seed=2).astype("float32")
        noisy = clean + np.float32(sigma) * noise
        slope = float(flow.schedule.slopes(t)[1])
        expected = noisy - sigma / slope * numpy(velocity(noisy, t))
        found = numpy(flow({"x": noisy, "t": times}))
        error = np.sqrt(np.mean((found - expected) ** 2))
        unsure = np.sqrt(np.mean((clean - expected) ** 2))  # what nobody can know
        assert error < 0.12 and error < 0.3 * unsure, (t, error, unsure)


# === Sampling ===
def exact_mean(data, schedule):
    """E[x_0 | x] of points, at levels of each sample's own where it is told k."""
    velocity = poisson_kernel(1, schedule).field(data)

    def denoiser(x, t, k=None):
        t = t if k is None else own_times(schedule, t, k)
        return x - (schedule.sigma(t) / schedule.slopes(t)[1])[:, None] * velocity(x, t)

    return denoiser


def distances(noise, schedule, own=True):
    """How far samples of the exact field of 400 points of the mixture are from the nearest of them.

    Where the solution ends, before the last hop.
    """
    data = Mixture().sample(400, seed=1).astype("float32")
    denoiser = exact_mean(data, schedule)
    settings = {"prediction": "x0", "denoise": False}
    sample, found = compiled(ode_sample, denoiser, schedule, 30, **settings), []
    for e in np.split(noise, max(1, len(noise) // 1000)):
        k = numpy(own_levels(e, 1.0)) if own else np.ones(len(e), "float32")
        x = numpy(sample(schedule.high * k[:, None] * e, conditions={"k": k}).x)
        found.append(np.min(np.linalg.norm(x[:, None] - data[None], axis=-1), axis=1))
    return np.concatenate(found)


@pytest.mark.slow
@pytest.mark.parametrize("quantile", [0.99, 1.0])
def test_no_sample_of_the_exact_field_is_left_on_its_way(quantile):
    noise = numpy(poisson_noise(seed_pair(0), 0, (3000, 2), 1, quantile))
    schedule = small(1).schedule
    assert np.mean(distances(noise, schedule) > 0.3) < 1e-3
    if quantile == 1.0:  # some are, on the grid that is common to all
        far = np.argsort(np.linalg.norm(noise, axis=-1))[-3:]
        assert distances(noise[far], schedule, own=False).min() > 0.3


def test_a_straggler_arrives_on_its_own_grid_as_the_others_do():
    schedule, angles = small(1).schedule, np.linspace(0, 6, 8)
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype("float32")
    for ratio in (3.0, 300.0, 30_000.0):
        assert distances(ratio * unit, schedule).max() < 0.1
    assert distances(3000.0 * unit, schedule, own=False).min() > 0.5


@pytest.mark.parametrize("D", [1.0, 64.0])
def test_levels_of_its_own_are_those_of_the_formula(D, rng):
    noise = rng.standard_t(D, (50, 3, 2)).astype("float32")
    squares = np.sum(noise.astype("float64") ** 2, axis=(1, 2))
    k = numpy(own_levels(noise, D))
    np.testing.assert_allclose(k, np.minimum(1, np.sqrt((6 + D) / (D + squares))), rtol=1e-5)
    # None begins farther away, in all d + D dimensions, than sigma (d + D)^(1/2), and some do there.
    far = k**2 * (D + squares)
    assert far.max() <= (6 + D) * 1.001 and 0 < np.mean(k < 1) < 1
    schedule, t = small(1).schedule, np.linspace(0.0, 1.0, 50).astype("float32")
    found = schedule.sigma(numpy(own_times(schedule, ops.convert_to_tensor(t), k)))
    expected = np.maximum(k * schedule.sigma(t.astype("float64")), schedule.low)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_model_samples_on_these_grids():
    flow = small(1, num_classes=3, hidden=16)
    far = np.float32([[80.0, 0.0], [800.0, -800.0], [0.0, 8e4]])
    label = np.array([0, 1, 2])
    k = own_levels(far / 80.0, 1.0)

    def denoiser(x, t, label, k):
        return flow({"x": x, "t": own_times(flow.schedule, t, k), "label": label})

    conditions = {"label": label, "k": k}
    settings = {"prediction": "x0", "return_trajectory": True}
    start = k[:, None] * far
    expected = ode_sample(denoiser, flow.schedule, start, 4, conditions=conditions, **settings)
    found = flow.sample(far, 4, label=label, return_trajectory=True)
    for a, b in zip(numpy(found.trajectory), numpy(expected.trajectory), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max())
    np.testing.assert_allclose(numpy(found.trajectory)[0], numpy(start), rtol=1e-6)
    guided = [flow.sample(far, 4, label=label, guidance=scale).x for scale in (1.0, 1.001)]
    np.testing.assert_allclose(*map(numpy, guided), rtol=0.02, atol=0.02)
    # Before time 1 all have the same grid, and what was given stays.
    middle = flow.sample(far / 100, 4, label=label, start=0.5, return_trajectory=True)
    np.testing.assert_array_equal(numpy(middle.trajectory)[0], far / 100)


def test_the_first_points_have_the_density_of_the_kernel():
    flow = small(1)
    squares = np.sum((first_of(flow, 20000, 0).astype("float64") / 80.0) ** 2, axis=-1)
    assert squares.max() <= 3.0001  # they begin on a sphere, or within it
    length = np.sqrt(np.where(squares > 2, squares / np.maximum(3 - squares, 1e-6), squares))
    for share in (0.1, 0.5, 0.9):  # of what is left
        expected = np.sqrt((1 - 0.99 * share) ** -2 - 1)
        assert abs(np.mean(length < expected) - share) < 4 * np.sqrt(share * (1 - share) / 20000)


@pytest.mark.slow
def test_without_tails_it_is_saved_and_loaded(tmp_path):
    flow = small(INF, low=0.01, high=20.0, seed=1)
    flow.compile(keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5))
    flow.fit(points(128), verbose=0)
    flow.save(tmp_path / "flow.keras")
    loaded = keras.saving.load_model(tmp_path / "flow.keras")
    assert loaded.D == INF and loaded.get_config() == flow.get_config()
    for name, arguments in (("sample", (4, 3)), ("log_likelihood", (points(3),))):
        found, expected = (getattr(each, name)(*arguments, seed=1) for each in (loaded, flow))
        found, expected = (getattr(each, "x", each) for each in (found, expected))
        np.testing.assert_array_equal(numpy(found), numpy(expected))
    losses = [each.evaluate(points(64, 1), verbose=0) for each in (flow, loaded)]
    assert losses[0] == losses[1]


def test_a_seed_gives_the_same_samples_in_every_way():
    flow = small(1)
    flow.compile("adam", run_eagerly=True)
    expected = numpy(flow.sample(4, 3, seed=3).x)
    flow.compile("adam")
    for jit_compile in (False, True):
        found = numpy(flow.sample(4, 3, seed=3, jit_compile=jit_compile).x)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(numpy(flow.sample(2, 3, seed=3).x), expected[:2], atol=1e-5)
    assert np.any(numpy(flow.sample(4, 3, seed=4).x) != expected)
    result = flow.sample(4, 3, "euler", seed=3, return_trajectory=True)
    assert result.trajectory.shape == (5, 4, 2) and result.calls == 4


@pytest.mark.slow
@pytest.mark.parametrize("how", ["float16 and jit", "labels"])
def test_it_trains_saves_and_loads(how, tmp_path):
    classes = 3 if how == "labels" else None
    dtype = "mixed_float16" if how != "labels" else None
    flow = small(1, dtype=dtype, num_classes=classes, cond_dropout=0.2 if classes else 0.0)
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5)
    optimizer = GuardedLossScale(optimizer) if dtype else optimizer
    flow.compile(optimizer, jit_compile=how != "labels")
    x, label = points(256), np.arange(256) % 3 if classes else None
    before = flow.evaluate(x, label, verbose=0)
    history = flow.fit(x, label, epochs=5, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert flow.evaluate(x, label, verbose=0) < 0.9 * before
    settings = {"label": 1, "guidance": 2.0} if classes else {}
    expected = numpy(flow.sample(4, 3, seed=1, **settings).x)
    assert np.isfinite(expected).all()
    flow.save(tmp_path / "flow.keras")
    loaded = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(numpy(loaded.sample(4, 3, seed=1, **settings).x), expected)


@pytest.mark.parametrize("D", [2.5, INF])
def test_its_settings_are_saved(D):
    flow = small(D, low=0.01, high=30.0, rho=5.0, quantile=0.95, seed=3)
    again = PoissonFlow.from_config(flow.get_config())
    assert again.get_config() == flow.get_config()
    assert (again.D, again.quantile, again.schedule) == (D, 0.95, flow.schedule)


def test_bad_arguments():
    for arguments, message in (
        ({"D": 0.5}, "D of at least 1"),
        ({"D": float("nan")}, "D to be a finite number"),
        ({"D": "1"}, "D to be a finite number"),
        ({"quantile": 0.0}, r"quantile in \(0, 1\]"),
        ({"quantile": 1.5}, r"quantile in \(0, 1\]"),
        ({"low": 90.0}, "low"),
    ):
        with pytest.raises(ValueError, match=message):
            small(**arguments)
    flow = small(1)
    with pytest.raises(ValueError, match="solver of euler"):
        flow.sample(2, 3, "ddpm")
    with pytest.raises(ValueError, match="Expected D=inf"):
        flow.log_likelihood(points(2), steps=2)
    flow.compile("adam")
    with pytest.raises(ValueError, match="float dtype"):
        flow.fit(np.zeros((4, 2), "int32"), verbose=0)
    flow.network.get_layer("Input-Dense").kernel.assign(np.full((2, 8), np.nan))
    with pytest.raises(ValueError, match="first at step 0"):
        flow.sample(2, 3)
