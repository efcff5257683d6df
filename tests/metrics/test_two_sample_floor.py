from functools import partial

import numpy as np
import pytest

from keras_ext.metrics import (
    PrecisionRecall,
    energy_distance,
    frechet_distance,
    mmd,
    precision_recall,
    sliced_wasserstein,
    two_sample_floor,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_the_sets_are_disjoint_of_the_sizes_asked_for_and_another_each_time():
    seen = []

    def watch(x, y):
        seen.append((tuple(x), tuple(y)))
        return float(x[0])

    floor = two_sample_floor(watch, np.arange(10.0), sizes=(3, 5), repeats=40)
    assert (floor.sizes, floor.repeats) == ((3, 5), 40)
    assert all(len({*x, *y}) == 8 and len(x) == 3 for x, y in seen)
    assert len(set(seen)) > 35
    assert {number for x, y in seen for number in x + y} == set(range(10))
    firsts = [x[0] for x, _ in seen]
    assert floor.mean == pytest.approx(np.mean(firsts))
    assert floor.std == pytest.approx(np.std(firsts, ddof=1))


def test_a_seed_gives_the_same_floor():
    data = normal(40, 2)
    first, again, other = (two_sample_floor(energy_distance, data, seed=s) for s in (1, 1, 2))
    assert first == again != other
    assert first.sizes == (20, 20)
    assert two_sample_floor(energy_distance, data[:39]).sizes == (19, 19)


def test_several_figures_have_a_floor_each():
    floor = two_sample_floor(precision_recall, normal(200, 2), repeats=5)
    assert isinstance(floor.mean, PrecisionRecall) and isinstance(floor.std, PrecisionRecall)
    assert 0.8 < floor.mean.recall < 1 and 0 < floor.std.precision < 0.1
    floor = two_sample_floor(lambda x, y: (1.0, x.mean()), normal(200), repeats=5)
    assert floor.mean[0] == 1.0 and floor.std[0] == 0.0 and floor.std[1] > 0


@pytest.mark.parametrize(
    ("metric", "power", "figure"),
    [
        (partial(sliced_wasserstein, directions=20), 1 / 2, "mean"),
        (energy_distance, 1, "mean"),
        (frechet_distance, 1, "mean"),
        (partial(mmd, bandwidth=1.0), 1, "std"),
    ],
    ids=["sliced_wasserstein", "energy_distance", "frechet_distance", "mmd"],
)
def test_floors_fall_with_the_documented_power_of_n(metric, power, figure):
    data = normal(1600, 2)
    floors = [two_sample_floor(metric, data, (n, n), repeats=60) for n in (50, 800)]
    few, many = (getattr(floor, figure) for floor in floors)
    assert few / many == pytest.approx(16**power, rel=0.35)


def test_the_floor_of_the_energy_distance_is_the_documented_one():
    # Of the normal distribution in one dimension: E|x - x'| = 2 / sqrt(pi)
    floor = two_sample_floor(energy_distance, normal(4000), (200, 300), repeats=200)
    expected = (1 / 200 + 1 / 300) * 2 / np.sqrt(np.pi)
    assert floor.mean == pytest.approx(expected, abs=4 * floor.std / np.sqrt(200))


def test_the_data_themselves_are_within_the_floor_and_others_are_not():
    metrics = [sliced_wasserstein, energy_distance, frechet_distance, partial(mmd, bandwidth=1.0)]
    for metric in metrics:
        floor = two_sample_floor(metric, normal(600, 2), (300, 300))
        real, good = normal(2, 300, 2, seed=1)
        assert metric(real, good) < floor.mean + 3 * floor.std
        assert metric(real, good + 0.5) > floor.mean + 3 * floor.std


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ([1.0, 2.0], {"sizes": (2, 1)}, r"take n \+ m samples.*sizes=\(2, 1\), data.shape=\(2,\)"),
        ([1.0, 2.0], {"sizes": (0, 1)}, "at least one each"),
        ([1.0], {}, "Two disjoint sets"),
        (1.0, {}, "Two disjoint sets"),
        ([1.0, 2.0], {"repeats": 1}, "Received: repeats=1"),
        ([1.0, np.nan], {}, "finite"),
    ],
)
def test_bad_input_is_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        two_sample_floor(energy_distance, data, **options)
