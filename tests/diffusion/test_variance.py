import itertools

import keras
import numpy as np
import pytest
from keras import ops
from mixture import Mixture

from keras_ext import diffusion
from keras_ext.diffusion import ReverseVariance, estimate_reverse_variance, schedules
from keras_ext.diffusion.ddim import hop_rows
from keras_ext.diffusion.hops import bayes_hops
from keras_ext.diffusion.rising import rising

GMM5 = Mixture()
LINEAR = schedules.get("linear_ho")
# Its only step in the middle has alpha = 0.8, beta = 0.6.
MIDDLE = diffusion.CustomSchedule([1.0, 0.8, 0.1], [0.0, 0.6, 0.995])
DATA = GMM5.sample(8000, seed=1)
EXACT = GMM5.denoiser(LINEAR, xp=np)


class Scaled:
    """Data N(0, std^2 I): the denoiser of the mean; and its variance, exact."""

    def __init__(self, schedule, std=0.4):
        self.schedule, self.std = schedule, std

    def __call__(self, x, t):
        alpha, beta = self.schedule.alpha_bar(t)[:, None], self.schedule.beta_bar(t)[:, None]
        return beta * x / (alpha**2 * self.std**2 + beta**2)

    def sigma_bar2(self, t):
        return self.std**2 / (1.0 + (self.std / self.schedule.sigma(t)) ** 2)


def noisy(schedule, t, count, seed):
    """Data, noisy data, amplitudes (count,) of the mixture."""
    x0 = GMM5.sample(count, seed)
    alpha, beta = (np.full(count, f(t)) for f in (schedule.alpha_bar, schedule.beta_bar))
    noise = np.random.default_rng(seed + 1).normal(size=x0.shape)
    return x0, alpha[:, None] * x0 + beta[:, None] * noise, alpha, beta


def true_sigma_bar2(schedule, t):
    """E tr Cov[x0 | x_t] / d of the mixture."""
    _, x, alpha, beta = noisy(schedule, t, 60000, int(1000 * t))
    covariance = GMM5.posterior_covariance(x, alpha, beta)
    return 0.5 * np.trace(covariance, axis1=1, axis2=2).mean()


@pytest.mark.one_backend
def test_the_estimators_agree_with_the_posterior_covariance():
    times = np.array([0.05, 0.1, 0.2, 0.3, 0.4])
    expected = np.array([true_sigma_bar2(LINEAR, t) for t in times])
    found = {
        name: estimate_reverse_variance(
            EXACT, LINEAR, DATA, estimator=name, times=times, samples=2000, seed=3, batch_size=2000
        )
        for name in ("residual", "norm", "auto")
    }
    for name, table in found.items():
        assert np.all(np.abs(table.values - expected) < 4 * table.stderr + 0.01 * expected), name
        assert table.samples == 2000 and table.schedule == LINEAR
    difference = found["residual"].values - found["norm"].values
    errors = np.hypot(found["residual"].stderr, found["norm"].stderr)
    assert np.all(np.abs(difference) < 4 * errors)
    assert np.all(found["auto"].stderr < found["residual"].stderr)
    assert np.all(found["auto"].stderr < found["norm"].stderr)


@pytest.mark.one_backend
def test_the_stated_errors_are_those_of_repeated_estimates():
    times = np.array([0.01, 0.1, 0.4, 1.0])
    tables = [
        estimate_reverse_variance(EXACT, LINEAR, DATA, times=times, seed=seed, batch_size=1280)
        for seed in range(12)
    ]
    spread = np.std([table.values for table in tables], axis=0)
    stated = np.mean([table.stderr for table in tables], axis=0)
    # 12 numbers give a standard deviation to 20 %; clips and monotonicity make it smaller.
    assert np.all(spread < 1.8 * stated) and np.all(stated < 3.0 * spread)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("factor", "optimum", "norm"),
    [(0.8, 0.257, 0.359), (0.9, 0.248, 0.304), (1.0, 0.244, 0.244), (1.1, 0.248, 0.177)],
)
def test_an_imperfect_mean_has_the_variance_of_its_residual(factor, optimum, norm):
    exact = GMM5.denoiser(MIDDLE, xp=np)

    def denoiser(x, t):
        return factor * exact(x, t)

    def estimate(name):
        options = {"times": [0.5], "samples": 20000, "seed": 1, "batch_size": 5000}
        return estimate_reverse_variance(denoiser, MIDDLE, DATA, estimator=name, **options)

    found = {name: estimate(name) for name in ("residual", "norm", "auto")}
    for name, expected in [("residual", optimum), ("auto", optimum), ("norm", norm)]:
        table = found[name]
        assert abs(table.values[0] - expected) < 4 * table.stderr[0] + 0.001, name
    # The average of the negative logarithm of the Gaussian hop is least there, on a grid of s^2.
    _, gamma, sigma = bayes_hops((0.8, 0.6), (0.95, 0.312), eta=1.0)
    x0, x, alpha, beta = noisy(MIDDLE, 0.5, 60000, 5)
    mean = (x - 0.6 * factor * GMM5.eps(x, alpha, beta)) / 0.8
    error = np.mean((x0 - mean) ** 2)
    best = sigma**2 + gamma**2 * found["auto"].values[0]
    grid = best * np.geomspace(0.5, 2.0, 41)
    bound = 0.5 * np.log(grid) + 0.5 * (sigma**2 + gamma**2 * error) / grid
    assert abs(np.argmin(bound) - 20) <= 1


@pytest.mark.one_backend
def test_an_estimated_table_reproduces_a_gaussian_for_any_number_of_steps(rng):
    schedule = schedules.get("cosine")
    gaussian = Scaled(schedule)
    data = 0.4 * rng.normal(size=(4000, 32))
    table = estimate_reverse_variance(gaussian, schedule, data, seed=2, batch_size=2000)
    count = 1500 * 32
    for steps in (1, 3, 10):
        start = schedule.beta_bar(1.0) * rng.normal(size=(1500, 32))
        options = {"variance": table, "final_noise": True, "seed": 1}
        x = ops.convert_to_numpy(diffusion.ddpm(gaussian, schedule, start, steps, **options).x)
        assert abs(x.mean()) < 4 * 0.4 / np.sqrt(count)
        # The data themselves have 0.16 to 0.4 %, and the straight lines of the table are within 1 %.
        assert abs(x.var() / 0.16 - 1) < 4 * np.sqrt(2 / count) + 0.01
        dropped = diffusion.ddpm(gaussian, schedule, start, steps, seed=1)
        assert ops.convert_to_numpy(dropped.x).var() < 0.14


def test_the_table_between_and_beyond_its_times(rng):
    schedule = schedules.get("vp_continuous")
    exact = Scaled(schedule, 0.4)
    times = schedule.grid(49, "logsnr", end=1e-3)[::-1]
    table = ReverseVariance(times, exact.sigma_bar2(times), 0 * times, 1, schedule)
    between = np.linspace(1e-4, 1.0, 300)
    np.testing.assert_allclose(table.sigma_bar2(between), exact.sigma_bar2(between), rtol=0.01)
    assert table.sigma_bar2(0.0) == 0.0
    assert np.all(np.diff(table.sigma_bar2(between)) >= 0)
    straight = ReverseVariance([0.5, 1.0], [0.1, 0.3], [0, 0], 1, "straight")
    np.testing.assert_allclose(straight.sigma_bar2([0.5, 1.0]), [0.1, 0.3])


@pytest.mark.one_backend
def test_no_estimate_leaves_what_the_data_allow():
    spread = np.trace(np.cov(DATA.T, bias=True)) / 2
    table = estimate_reverse_variance(EXACT, LINEAR, DATA, estimator="norm", samples=16, seed=0)
    assert table.stderr[-1] > 1000 * spread  # hopeless: multiplied by sigma^2 = 24,800
    assert np.all(np.diff(table.values) >= 0) and 0 <= table.values[0]
    assert table.values[-1] < 1.1 * spread
    table = estimate_reverse_variance(EXACT, LINEAR, DATA, samples=16, seed=0, bound=(0.0, 0.8))
    assert table.values[-1] == pytest.approx(0.16)
    values = np.array([3.0, 1.0, 2.0, 2.0, 5.0, 4.0])
    weights = np.array([1.0, 2.0, 1.0, 1.0, 3.0, 1.0])
    found = rising(values, weights)
    # Against the formula max over i <= k of min over j >= k of the weighted means of i ... j.
    mean = [
        [
            np.average(values[i : j + 1], weights=weights[i : j + 1]) if i <= j else 0
            for j in range(6)
        ]
        for i in range(6)
    ]
    expected = [max(min(mean[i][j] for j in range(k, 6)) for i in range(k + 1)) for k in range(6)]
    np.testing.assert_allclose(found, expected)


def test_the_noise_of_the_last_hop_is_held(rng):
    table = ReverseVariance([0.1, 1.0], [0.2, 0.3], [0, 0], 1, "cosine", last_noise=0.01)
    free = ReverseVariance([0.1, 1.0], [0.2, 0.3], [0, 0], 1, "cosine")
    cosine = schedules.get("cosine")
    rows, others = (
        hop_rows(cosine, cosine.grid(4), 0.0, each).noise[:, 0] for each in (table, free)
    )
    np.testing.assert_array_equal(rows[[0, 1, 3]], others[[0, 1, 3]])
    assert rows[3] == 0 and rows[2] < others[2]
    assert np.abs(rows[2] * rng.normal(size=100000)).mean() == pytest.approx(0.01, rel=0.02)


@pytest.mark.one_backend
def test_batches_conditions_predictions_and_seeds():
    options = {"times": [0.1, 0.4], "samples": 400, "seed": 5}
    table = estimate_reverse_variance(EXACT, LINEAR, DATA, **options)
    again = estimate_reverse_variance(EXACT, LINEAR, DATA, **options)
    np.testing.assert_array_equal(table.values, again.values)
    for prediction in ("x0", "v", "score"):
        denoiser = GMM5.denoiser(LINEAR, prediction)
        found = estimate_reverse_variance(denoiser, LINEAR, DATA, prediction, **options)
        np.testing.assert_allclose(found.values, table.values, rtol=1e-3)

    def conditioned(x, t, shift, scale):
        assert shift.shape == (len(x),) and scale == 2.0
        assert np.allclose(np.asarray(shift) > 0, np.abs(np.asarray(shift)) > 1)
        return EXACT(x, t) + 0.0 * np.asarray(shift)[:, None]

    shift = np.where(np.arange(len(DATA)) % 2 == 0, 2.0, -0.5)
    given = {"shift": shift, "scale": 2.0}
    found = estimate_reverse_variance(conditioned, LINEAR, DATA, conditions=given, **options)
    np.testing.assert_array_equal(found.values, table.values)
    pairs = [(DATA[i : i + 300], {"shift": shift[i : i + 300]}) for i in range(0, 600, 300)]
    found = estimate_reverse_variance(
        conditioned, LINEAR, pairs, conditions={"scale": 2.0}, **options
    )
    assert np.all(np.abs(found.values - table.values) < 6 * table.stderr)
    steps = diffusion.CustomSchedule(
        LINEAR.alpha_bar(np.arange(6) / 5), LINEAR.beta_bar(np.arange(6) / 5)
    )
    every = estimate_reverse_variance(GMM5.denoiser(steps, xp=np), steps, DATA, times="all", seed=0)
    np.testing.assert_allclose(every.times, [0.2, 0.4, 0.6, 0.8, 1.0])


def test_a_file_is_the_table_or_refused(tmp_path):
    path = tmp_path / "variance.npz"
    custom = diffusion.CustomSchedule([1.0, 0.5, 0.0], [0.0, 0.8, 1.0])
    table = ReverseVariance([0.5, 1.0], [0.1, 0.3], [0.01, 0.02], 320, custom, last_noise=0.02)
    path.write_text("an older file")
    table.save(path)
    loaded = ReverseVariance.load(path)
    for name in ("times", "values", "stderr", "samples", "schedule", "last_noise"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(table, name))
    assert [each.name for each in tmp_path.iterdir()] == ["variance.npz"]
    whole = path.read_bytes()
    foreign = tmp_path / "foreign.npz"
    np.savez(foreign, weights=np.ones(3))
    damaged = [whole[: len(whole) // 2], b"", b"text", foreign.read_bytes()]
    middle = whole.index(b"values.npy") + 200  # among the numbers
    damaged.append(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    np.save(tmp_path / "array.npy", np.ones(3))
    damaged.append((tmp_path / "array.npy").read_bytes())
    np.savez(foreign, format=str(np.load(path)["format"]), times=np.ones(1))
    damaged.append(foreign.read_bytes())
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"Expected a file that ReverseVariance.save wrote"):
            ReverseVariance.load(path)
    with pytest.raises(FileNotFoundError):
        ReverseVariance.load(tmp_path / "absent.npz")


def test_the_best_times_are_those_of_all_subsequences():
    count = 9
    alpha = np.cos(0.5 * np.pi * np.arange(count + 1) / (count + 1))
    schedule = diffusion.CustomSchedule(alpha, np.sqrt(1 - alpha**2))
    times = np.arange(1, count + 1) / count
    table = ReverseVariance(
        times, np.sort(np.random.default_rng(0).uniform(size=count)), 0 * times, 1, schedule
    )

    def bound(knots):
        """From the divergences of Gaussians, as they are."""
        levels = schedule.levels(np.asarray(knots))
        total = 0.0
        for i, r in enumerate(knots[:-2]):
            here, there = ([each[j] for each in levels] for j in (i, i + 1))
            _, gamma, sigma = bayes_hops(here, there, eta=1.0)
            rest = gamma**2 * table.sigma_bar2(r)
            s2 = sigma**2 + rest
            total += 0.5 * (sigma**2 / s2 - 1 + np.log(s2 / sigma**2)) + 0.5 * rest / s2
        last = table.sigma_bar2(knots[-2])
        return total + 0.5 * np.log(2 * np.pi * last) + 0.5

    for steps, final_noise in itertools.product((1, 2, 4, 9), (False, True)):
        ends = [1.0] if steps == 1 else [1.0, times[0]]
        free = times[:-1] if final_noise else times[1:-1]
        lists = [
            [1.0, *sorted(each, reverse=True), *(() if final_noise else ends[1:]), 0.0]
            for each in itertools.combinations(
                free, steps - 1 if final_noise else steps - len(ends)
            )
        ]
        found = diffusion.optimal_times(table, schedule, steps, final_noise=final_noise)
        assert found.shape == (steps + 1,)
        least = min(map(bound, lists))
        assert bound(found) == pytest.approx(least, abs=1e-9)
        assert diffusion.hops_bound(table, schedule, found) == pytest.approx(least, abs=1e-9)


@pytest.mark.one_backend
def test_the_best_times_of_the_mixture_beat_those_of_equal_hops(rng):
    table = estimate_reverse_variance(EXACT, LINEAR, DATA, seed=0)
    for steps in (5, 20):
        times = diffusion.optimal_times(table, LINEAR, steps)
        bounds = [diffusion.hops_bound(table, LINEAR, each) for each in (times, LINEAR.grid(steps))]
        assert bounds[0] < bounds[1] - 0.05
        noise = rng.normal(size=(10, 2)).astype("float32")
        denoiser = GMM5.denoiser(LINEAR)
        found = diffusion.ddpm(denoiser, LINEAR, noise, steps, spacing=times, variance=table)
        assert found.calls == steps
    # For a Gaussian every list is equally good: the hops are exact.
    gaussian = Scaled(LINEAR)
    bounds = [
        diffusion.hops_bound(gaussian, LINEAR, LINEAR.grid(steps, spacing))
        for steps, spacing in [(3, "trailing"), (10, "logsnr"), (50, "trailing")]
    ]
    np.testing.assert_allclose(bounds, bounds[0], atol=1e-9)


def test_what_is_refused(tmp_path):
    nan = np.where(np.arange(20).reshape(10, 2) == 7, np.nan, 1.0)

    def fails(x, t):
        return np.where(np.asarray(t)[:, None] < 0.5, np.nan, np.asarray(x))

    for arguments, options, words in [
        ((EXACT, np.zeros((0, 2))), {}, "at least one sample"),
        ((EXACT, []), {}, "at least two"),
        ((EXACT, DATA[:1]), {}, "at least two"),
        ((EXACT, iter([DATA[:9]])), {}, "gone through again"),
        ((EXACT, [[1.0, 2.0]]), {}, "batches that are arrays"),
        ((EXACT, 3.0), {}, "iterable"),
        ((EXACT, nan), {}, "finite data"),
        ((EXACT, [nan]), {}, "finite data"),
        ((EXACT, np.ones((9, 2), "int32")), {}, "float dtype"),
        ((EXACT, DATA), {"estimator": "both"}, "auto, residual, norm"),
        ((EXACT, DATA), {"prediction": "noise"}, "eps, x0"),
        ((EXACT, DATA), {"samples": 1}, "samples"),
        ((EXACT, DATA), {"samples": 5}, "even samples"),
        ((EXACT, DATA), {"times": [0.0, 0.5]}, "times above 0"),
        ((EXACT, DATA), {"times": "some"}, "all"),
        ((EXACT, DATA), {"last_noise": 0.0}, "above 0"),
        ((EXACT, DATA), {"bound": (1.0, -1.0)}, "bound"),
        ((fails, DATA), {}, "at time t=0"),
    ]:
        denoiser, data = arguments
        with pytest.raises(ValueError, match=words):
            estimate_reverse_variance(denoiser, LINEAR, data, seed=0, **options)
    for arguments, words in [
        (([0.5, 0.2], [0.1, 0.2], [0, 0]), "increase"),
        (([0.0, 0.2], [0.1, 0.2], [0, 0]), "increase"),
        (([0.2, 0.5], [0.1, -0.2], [0, 0]), "at least 0"),
        (([0.2, 0.5], [0.1, np.nan], [0, 0]), "finite"),
        (([0.2, 0.5], [0.1], [0, 0]), "one shape"),
    ]:
        with pytest.raises(ValueError, match=words):
            ReverseVariance(*arguments, 1, LINEAR)
    table = ReverseVariance([1.0], [0.5], [0.1], 1, LINEAR)
    noise = keras.random.normal((2, 2), seed=0)
    with pytest.raises(ValueError, match="another schedule"):
        diffusion.ddim(lambda x, t: x, "cosine", noise, 5, variance=table)
    for of_table in (
        lambda: diffusion.optimal_times(table, "cosine", 3),
        lambda: diffusion.hops_bound(table, "cosine", [1.0, 0.0]),
    ):
        with pytest.raises(ValueError, match="another schedule"):
            of_table()
    with pytest.raises(ValueError, match="at least steps=3"):
        diffusion.optimal_times(table, LINEAR, 3, candidates=[0.5, 1.0])
    with pytest.raises(ValueError, match="end with 0"):
        diffusion.hops_bound(table, LINEAR, [1.0, 0.5])
