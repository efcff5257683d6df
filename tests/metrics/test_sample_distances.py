import tracemalloc
from functools import partial
from importlib import import_module

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.spatial import distance

from keras_ext.metrics import (
    energy_distance,
    frechet_distance,
    mmd,
    precision_recall,
    sliced_wasserstein,
)
from keras_ext.metrics.distance_blocks import distance_blocks, mean_over_pairs

METRICS = [energy_distance, frechet_distance, mmd, precision_recall, sliced_wasserstein]
every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)


def normal(*shape, seed=0, mean=0.0):
    return np.random.default_rng(seed).normal(mean, size=shape)


# All metrics.


@every_metric
def test_only_the_sets_count_not_their_order_shape_or_dtype(metric):
    x, y = normal(31, 2, 3, seed=1), normal(40, 2, 3, seed=2, mean=0.5)
    x, y = x.astype("float32"), y.astype("float32")
    expected = metric(x, y)
    assert metric(x[::-1], np.roll(y, 7, axis=0)) == pytest.approx(expected, abs=1e-12)
    assert metric(x.reshape(31, 6), y.reshape(40, 6)) == expected
    assert metric(x.astype("float64").tolist(), y.astype("float64").tolist()) == expected
    assert np.shape(expected) == np.shape(metric(y, x))


@pytest.mark.parametrize("metric", [energy_distance, frechet_distance, mmd, sliced_wasserstein])
def test_distances_are_symmetric(metric):
    x, y = normal(31, 3, seed=1), normal(40, 3, seed=2, mean=0.5)
    assert metric(x, y) == pytest.approx(metric(y, x), abs=1e-12)
    assert metric(x, y) > 0.01


@pytest.mark.parametrize("metric", [energy_distance, frechet_distance, mmd, precision_recall])
@pytest.mark.parametrize("d", [3, 80])
def test_rotations_and_shifts_of_both_sets_change_nothing(metric, d):
    x, y = normal(31, d, seed=1), normal(40, d, seed=2, mean=0.5)
    rotation = stats.ortho_group.rvs(d, random_state=0)
    turned = metric(x @ rotation + 3.0, y @ rotation + 3.0)
    assert turned == pytest.approx(metric(x, y), rel=1e-9)


@every_metric
def test_integers_are_numbers(metric):
    x = np.random.default_rng(0).integers(0, 256, (20, 4, 4), dtype="uint8")
    y = np.random.default_rng(1).integers(0, 256, (20, 4, 4), dtype="uint8")
    assert metric(x, y) == metric(x.astype("float64"), y.astype("float64"))


@every_metric
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((9, 2)), np.zeros((9, 3)), r"same shape.*\(9, 2\), y.shape=\(9, 3\)"),
        (np.zeros((9, 2, 3)), np.zeros((9, 3, 2)), "same shape"),
        (np.zeros((9, 2)), np.zeros(9), "same shape"),
        (np.zeros((0, 2)), np.zeros((9, 2)), r"at least .*x.shape=\(0, 2\)"),
        (np.zeros((9, 2)), np.zeros((0, 2)), r"at least .*y.shape=\(0, 2\)"),
        (np.zeros((9, 0)), np.zeros((9, 0)), "a number in it"),
        (np.float64(3), np.zeros(9), r"x.shape=\(\)"),
        (np.zeros(9), [0.0, np.nan, 1.0, 2.0], r"finite. Received: y\[1\]=nan"),
        ([[0.0, 1.0]] * 4 + [[0.0, -np.inf]], np.zeros((9, 2)), r"x\[4, 1\]=-inf"),
        (np.zeros(9, complex), np.zeros(9), "real numbers. Received: x of complex128"),
        (["a"] * 9, np.zeros(9), "real numbers"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(metric, x, y, message):
    with pytest.raises(ValueError, match=message):
        metric(x, y)


@pytest.mark.parametrize(
    ("metric", "n", "options", "message"),
    [
        (mmd, 1, {}, "at least 2"),
        (frechet_distance, 1, {}, "at least 2"),
        (precision_recall, 3, {}, "at least 4"),
        (precision_recall, 5, {"k": 5}, "at least 6"),
        (precision_recall, 5, {"k": 0}, "Received: k=0"),
        (mmd, 5, {"bandwidth": 0.0}, "Received: bandwidth=0.0"),
        (mmd, 5, {"bandwidth": np.nan}, "Received: bandwidth=nan"),
        (sliced_wasserstein, 5, {"directions": 0}, "Received: directions=0"),
        (sliced_wasserstein, 5, {"order": 0.5}, "Received: order=0.5"),
        (sliced_wasserstein, 5, {"order": np.inf}, "Received: order=inf"),
    ],
)
def test_too_few_samples_and_bad_options_are_refused(metric, n, options, message):
    with pytest.raises(ValueError, match=message):
        metric(normal(n, 2), normal(9, 2), **options)
    assert np.isfinite(metric(normal(9, 2), normal(9, 2))).all()


def test_most_samples_equal_have_no_median_distance():
    with pytest.raises(ValueError, match="expected a bandwidth"):
        mmd(np.zeros(9), np.zeros(9))
    assert mmd(np.zeros(9), np.zeros(9), bandwidth=1.0) == pytest.approx(0, abs=1e-15)


# The distances of pairs.


@pytest.mark.parametrize("d", [2, 64, 65, 200])
def test_blocks_are_the_distances_of_all_pairs(d, monkeypatch):
    monkeypatch.setattr("keras_ext.metrics.distance_blocks.PAIRS", 90)
    monkeypatch.setattr("keras_ext.metrics.distance_blocks.PAIRS_OF_PRODUCT", 90)
    x, y = normal(50, d, seed=1), normal(30, d, seed=2)
    for a, b in ((x, y), (x, x)):
        blocks = dict((rows.start, block) for rows, block in distance_blocks(a, b))
        assert len(blocks) > 10
        found = np.concatenate(list(blocks.values()))
        np.testing.assert_allclose(found, distance.cdist(a, b, "sqeuclidean"), rtol=1e-12)
    assert not np.diagonal(found).any()


@pytest.mark.parametrize("d", [2, 200])
def test_near_points_far_from_zero_lose_no_digits(d):
    x = normal(20, d, seed=1) * 1e-7 + 1.0
    y = np.concatenate([x[:5], normal(20, d, seed=2) * 1e-7 + 1.0])
    for a, b in ((x, y), (x, x)):
        ((_, found),) = distance_blocks(a, b)
        naive = ((a[:, None] - b[None]) ** 2).sum(axis=2)
        np.testing.assert_allclose(found, naive, rtol=1e-9)


def test_a_mean_over_pairs_uses_every_pair_once():
    x = normal(1301, 2)
    y = x.copy()  # equal, but for the function two sets
    assert mean_over_pairs(np.sqrt, x, x) == pytest.approx(
        mean_over_pairs(np.sqrt, x, y), rel=1e-12
    )


@pytest.mark.parametrize("metric", [energy_distance, mmd, precision_recall])
def test_memory_does_not_grow_with_all_pairs(metric):
    x, y = normal(3000, 2, seed=1), normal(3000, 2, seed=2)
    metric(x[:9], y[:9])  # imports
    tracemalloc.start()
    metric(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000 * 3000 * 8 / 6


# Sliced Wasserstein.


@pytest.mark.parametrize("order", [1, 2, 3.5])
@pytest.mark.parametrize(("n", "m"), [(6, 6), (6, 9), (1, 4), (7, 5)])
def test_in_one_dimension_it_is_the_best_assignment_of_repeated_samples(n, m, order):
    x, y = normal(n, seed=1), normal(m, seed=2)
    # As many copies of both, so that every sample goes as a whole.
    many = np.repeat(x, np.lcm(n, m) // n), np.repeat(y, np.lcm(n, m) // m)
    cost = np.abs(many[0][:, None] - many[1]) ** order
    expected = cost[optimize.linear_sum_assignment(cost)].mean() ** (1 / order)
    assert sliced_wasserstein(x, y, order=order) == pytest.approx(expected, rel=1e-12)
    if order == 1:
        assert expected == pytest.approx(stats.wasserstein_distance(x, y), rel=1e-12)


def test_it_is_the_mean_over_the_documented_directions(monkeypatch):
    x, y = normal(12, 4, seed=1), normal(9, 4, seed=2)
    axes = np.random.default_rng(5).normal(size=(7, 4))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    expected = np.mean([stats.wasserstein_distance(x @ axis, y @ axis) for axis in axes])
    find = partial(sliced_wasserstein, x, y, directions=7, order=1, seed=5)
    assert find() == pytest.approx(expected, rel=1e-12)
    module = import_module("keras_ext.metrics.sliced_wasserstein")  # the function has its name
    for projected in (1, 40, 61):  # one direction at a time, two, three
        monkeypatch.setattr(module, "PROJECTED", projected)
        assert find() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("d", [1, 2, 8])
def test_a_shift_counts_its_length_times_the_mean_cosine(d):
    x, shift = normal(50, d, seed=1), normal(d, seed=2)
    axes = np.random.default_rng(0).normal(size=(100, d))
    cosines = axes @ shift / np.linalg.norm(axes, axis=1) / np.linalg.norm(shift)
    expected = np.linalg.norm(shift) * np.sqrt(np.mean(cosines**2))
    assert sliced_wasserstein(x, x + shift) == pytest.approx(expected, rel=1e-12)
    assert sliced_wasserstein(x, x) == 0.0
    many = sliced_wasserstein(x, x + shift, directions=20000)
    assert many == pytest.approx(np.linalg.norm(shift) / np.sqrt(d), rel=0.03)


# MMD.


@pytest.mark.parametrize("bandwidth", [0.3, 2.0, None])
def test_mmd_equals_the_double_loop(bandwidth):
    x, y = normal(9, 3, seed=1), normal(13, 3, seed=2, mean=0.5)
    width = bandwidth or np.median(distance.pdist(np.concatenate([x, y])))

    def kernel(a, b):
        return np.exp(-np.sum((a - b) ** 2) / (2 * width**2))

    def within(points):
        n = len(points)
        pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
        return np.mean([kernel(points[i], points[j]) for i, j in pairs])

    expected = within(x) + within(y) - 2 * np.mean([[kernel(a, b) for b in y] for a in x])
    assert mmd(x, y, bandwidth) == pytest.approx(expected, abs=1e-14)


def test_mmd_is_unbiased_at_every_size():
    # Gaussians: E k(x, y) = (1 + (s^2 + t^2) / b^2)^(-1/2) exp(-mean^2 / (2 (b^2 + s^2 + t^2)))
    def expected_kernel(mean):
        return 3**-0.5 * np.exp(-(mean**2) / 6)

    rng = np.random.default_rng(0)
    for mean in (0.0, 1.0):
        values = [mmd(rng.normal(size=4), rng.normal(mean, size=7), 1.0) for _ in range(1000)]
        expected = 2 * expected_kernel(0) - 2 * expected_kernel(mean)
        assert abs(np.mean(values) - expected) < 4 * np.std(values) / np.sqrt(1000)
    assert min(values) < 0


def test_the_median_of_many_samples_is_that_of_some():
    x, y = normal(1500, 2, seed=1), normal(1500, 2, seed=2, mean=0.5)
    exact = np.median(distance.pdist(np.concatenate([x, y])))
    assert mmd(x, y) == mmd(x, y)
    assert mmd(x, y) == pytest.approx(mmd(x, y, exact), rel=0.05)
    assert mmd(x, y) != mmd(x, y, exact)


# Energy distance.


def test_energy_distance_is_the_square_of_scipys_in_one_dimension():
    x, y = normal(31, seed=1), normal(17, seed=2, mean=0.5)
    expected = stats.energy_distance(x, y) ** 2
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_energy_distance_equals_the_double_loop():
    x, y = normal(9, 2, 2, seed=1), normal(13, 2, 2, seed=2)

    def mean(a, b):
        return np.mean([[np.linalg.norm(p - q) for q in b] for p in a])

    expected = 2 * mean(x, y) - mean(x, x) - mean(y, y)
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-12)
    assert energy_distance(x, x) == pytest.approx(0, abs=1e-14)


# Frechet distance.


def with_moments(mean, root, n=50):
    """Samples that have exactly this mean, and the covariance root' root."""
    white = normal(n, len(mean))
    white -= white.mean(axis=0)
    white = np.linalg.qr(white)[0] * np.sqrt(n - 1)
    return mean + white @ root


def test_frechet_distance_of_gaussians_with_known_moments():
    scales, others = np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.0, 0.0])
    mean, other = np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.0, 7.0])
    expected = 4 + 16 + np.sum((scales - others) ** 2)  # where the covariances commute
    x, y = with_moments(mean, np.diag(scales)), with_moments(other, np.diag(others))
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_of_covariances_that_do_not_commute():
    a, b = normal(5, 5, seed=1), normal(5, 5, seed=2)
    x, y = with_moments(np.zeros(5), a), with_moments(np.ones(5), b, n=70)
    values = np.linalg.eigvals(a.T @ a @ b.T @ b)
    expected = 5 + np.sum(a**2) + np.sum(b**2) - 2 * np.sqrt(values.real).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_with_less_samples_than_features():
    x, y = normal(8, 30, seed=1), normal(11, 30, seed=2)
    # Zeros for the missing rank: the same points in the space that they span.
    basis = np.linalg.qr(np.concatenate([x, y]).T)[0]  # (30, 19)
    assert frechet_distance(x, y) == pytest.approx(
        frechet_distance(x @ basis, y @ basis), rel=1e-12
    )
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(x, x + 0.5) == pytest.approx(30 * 0.25, rel=1e-12)
    padded = [np.pad(points, ((0, 0), (0, 3))) for points in (x, y)]
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(x, y), rel=1e-12)


@pytest.mark.parametrize("scales", [np.ones(6), np.array([3.0, 1.0, 0.3])])
def test_the_bias_of_the_frechet_distance_is_the_documented_one(scales):
    n, m, values = 300, 600, scales**2
    pairs = values[:, None] * values / (values[:, None] + values) * (1 + np.eye(len(values)))
    expected = (1 / n + 1 / m) * (values.sum() + pairs.sum() / 2)
    rng = np.random.default_rng(0)
    draws = [
        frechet_distance(*(rng.normal(scale=scales, size=(k, len(scales))) for k in (n, m)))
        for _ in range(300)
    ]
    error = np.std(draws) / np.sqrt(len(draws))
    assert np.mean(draws) == pytest.approx(expected, abs=4 * error + 0.02 * expected)


# Precision and recall.


@pytest.mark.parametrize("d", [2, 80])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_equal_the_definition(k, d):
    x, y = normal(40, d, seed=1), normal(30, d, seed=2, mean=1.0 if d == 2 else 0.3)

    def covered(points, centres):
        inside = []
        for point in points:
            near = False
            for i, centre in enumerate(centres):
                others = np.delete(centres, i, axis=0)
                reach = np.sort(np.linalg.norm(others - centre, axis=1))[k - 1]
                near |= np.linalg.norm(point - centre) <= reach
            inside.append(near)
        return np.mean(inside)

    expected = covered(y, x), covered(x, y)
    assert precision_recall(x, y, k) == expected
    assert 0 < min(expected) < 1
    assert precision_recall(y, x, k) == expected[::-1]


@pytest.mark.parametrize("d", [2, 80])
def test_equal_sets_have_all_and_disjoint_ones_nothing(d):
    x = normal(50, d)
    assert precision_recall(x, x) == (1.0, 1.0)
    assert precision_recall(x, x[::-1]) == (1.0, 1.0)
    assert precision_recall(x, x + 100.0) == (0.0, 0.0)
    assert precision_recall(np.zeros((9, d)), np.zeros((9, d))) == (1.0, 1.0)


def test_a_dropped_mode_costs_recall_alone_and_an_invented_one_precision():
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.normal(0, 1, (300, 2)), rng.normal(50, 1, (100, 2))])
    one_mode = real[:300]
    assert precision_recall(real, one_mode) == (1.0, 0.75)
    assert precision_recall(one_mode, real) == (0.75, 1.0)
