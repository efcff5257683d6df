import keras
import numpy as np
import pytest
from keras import ops

from keras_ext import diffusion
from keras_ext.diffusion import schedules
from keras_ext.diffusion.predictions import PREDICTIONS
from keras_ext.diffusion.spacing import SPACINGS

CUSTOM = diffusion.CustomSchedule([1.0, 0.9, 0.5, 0.0], [0.0, 0.5, 0.8, 1.1])
ALL = [*map(schedules.get, schedules.NAMES), CUSTOM]
TIMES = np.linspace(0.0, 1.0, 202)[1:-1]


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_a_schedule_is_what_its_config_says(schedule):
    stored = keras.saving.serialize_keras_object(schedule)
    again = schedules.get(stored)
    assert again == schedule and hash(again) == hash(schedule)
    assert (
        keras.saving.get_registered_name(type(schedule)) == f"keras_ext>{type(schedule).__name__}"
    )
    assert schedule != diffusion.VESchedule(0.5, 7.0)


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_the_derivatives_are_those_of_the_amplitudes(schedule):
    h, t = 1e-6, TIMES + 1e-4  # between the points of a table
    log_slope = np.log(schedule.alpha_bar(t + h) / schedule.alpha_bar(t - h)) / (2 * h)
    squares = (schedule.sigma(t + h) ** 2 - schedule.sigma(t - h) ** 2) / (2 * h)
    np.testing.assert_allclose(schedule.drift(t), log_slope, rtol=1e-5, atol=1e-6)
    expected = schedule.alpha_bar(t) ** 2 * squares
    np.testing.assert_allclose(schedule.diffusion2(t), expected, rtol=1e-5)


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_sigma_and_its_inverse_and_tensors_in_float32(schedule):
    sigma = schedule.sigma(TIMES)
    assert np.all(np.diff(sigma) > 0)
    np.testing.assert_allclose(schedule.t_of_sigma(sigma), TIMES, atol=1e-13)
    t = ops.convert_to_tensor(TIMES.astype("float32"))
    for name in ("alpha_bar", "beta_bar", "sigma", "drift", "diffusion2"):
        found = getattr(schedule, name)(t)
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        expected = getattr(schedule, name)(TIMES.astype("float32"))
        np.testing.assert_allclose(found, expected, rtol=3e-5, err_msg=name)
    found = schedule.t_of_sigma(ops.convert_to_tensor(sigma.astype("float32")))
    np.testing.assert_allclose(found, TIMES, atol=1e-5)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("schedule", ALL[:-1], ids=str)
def test_every_grid_falls_to_its_end_exactly(schedule, spacing):
    for steps in (1, 7, 13, 33):
        for end in (0.0, 1e-3):
            grid = schedule.grid(steps, spacing, end=end)
            assert grid.shape == (steps + 1,) and grid[-1] == end and np.all(np.diff(grid) < 0)
            assert grid[0] == 1.0 or spacing == "leading"


def test_values_that_are_known():
    betas = np.linspace(1e-4, 0.02, 1000)
    product = np.concatenate([[1.0], np.sqrt(np.cumprod(1 - betas))])
    linear = schedules.get("linear_ho")
    np.testing.assert_allclose(linear.alpha_bar(np.arange(1001) / 1000), product, rtol=1e-10)
    assert schedules.get("su_linear").alpha_bar(1.0) == pytest.approx(0.00648, abs=1e-5)
    sub_vp = schedules.get("sub_vp")
    np.testing.assert_allclose(sub_vp.beta_bar(TIMES), 1 - sub_vp.alpha_bar(TIMES) ** 2)
    small = schedules.get("vp_continuous").beta_bar(ops.convert_to_tensor(np.float32(1e-5)))
    assert float(small) ** 2 == pytest.approx(1.000995e-6 - 5e-13, rel=1e-6)


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_conversions_of_predictions_are_inverses(schedule, rng):
    known = [p for p in PREDICTIONS if p != "v" or schedule.variance_preserving]
    x, x0 = rng.normal(size=(2, 6, 3)).astype("float32")
    t = np.linspace(0.1, 0.8, 6)
    eps = (x - schedule.alpha_bar(t)[:, None] * x0) / schedule.beta_bar(t)[:, None]
    for source in known:
        value = diffusion.convert_prediction(eps, x, t, schedule, "eps", source)
        for target in known:
            there = diffusion.convert_prediction(value, x, t, schedule, source, target)
            back = diffusion.convert_prediction(there, x, t, schedule, target, source)
            scale = np.abs(value).max() + np.abs(there).max() + 1
            np.testing.assert_allclose(back, value, atol=2e-5 * scale, err_msg=source + target)
    found = diffusion.convert_prediction(eps, x, t, schedule, "eps", "x0")
    np.testing.assert_allclose(found, x0, atol=2e-4 * float(schedule.sigma(0.8)) + 1e-5)


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_at_time_zero_a_velocity_says_the_data_too(schedule):
    x, value = np.ones((1, 2), "float32"), np.full((1, 2), 0.5, "float32")
    for t in (np.zeros(1), ops.zeros((1,))):
        assert all(np.isfinite(ops.convert_to_numpy(slope)) for slope in schedule.slopes(t))
        x0 = diffusion.convert_prediction(value, x, t, schedule, "velocity", "x0")
        expected = x  # but for the noise that "ve" and "edm" leave
        if schedule.beta_bar(0.0) > 0:
            expected = x - schedule.beta_bar(0.0) * value / schedule.slopes(0.0)[1]
        np.testing.assert_allclose(ops.convert_to_numpy(x0), expected, atol=1e-4)


def test_what_is_refused():
    straight, cosine = schedules.get("straight"), schedules.get("cosine")
    for function, words in [
        (lambda: schedules.get("sine"), "linear_ho, su_linear"),
        (lambda: cosine.alpha_bar(1.5), "between 0"),
        (lambda: cosine.alpha_bar(np.nan), "between 0"),
        (lambda: cosine.grid(1001), "1000 steps"),
        (lambda: cosine.grid(0), "at least 1"),
        (lambda: cosine.grid(2.5), "int"),
        (lambda: cosine.grid(5, "cubic"), "trailing"),
        (lambda: cosine.grid(2, [1.0, 0.0]), "3 times"),
        (lambda: cosine.grid(2, [1.0, 0.2, 0.3]), "decrease"),
        (lambda: diffusion.CustomSchedule([0.9, 0.1], [0.1, 1.0]), "begin at the data"),
        (lambda: diffusion.as_eps(None, straight, "v"), "velocity"),
        (lambda: diffusion.as_eps(None, straight, "w"), "eps, x0"),
        (
            lambda: diffusion.convert_prediction(
                np.ones((1, 1)), np.ones((1, 1)), np.ones(1), straight, "eps", "x0"
            ),
            "none of it is left",
        ),
    ]:
        with pytest.raises(ValueError, match=words):
            function()
