import math

import keras
import numpy as np
import pytest
from keras import ops
from mixture import Mixture

from keras_ext.diffusion import (
    characteristics,
    compiled,
    greens_field,
    heat_kernel,
    ode_sample,
    poisson_kernel,
    schedules,
    straight_lines,
)
from keras_ext.diffusion.autodiff import value_and_derivative
from keras_ext.diffusion.noise import standard_normal

KERNELS = {
    "heat": lambda: heat_kernel("edm"),
    "heat of cosine": lambda: heat_kernel("cosine"),
    "Poisson": lambda: poisson_kernel(1, "edm"),
    "Poisson, 2.5": lambda: poisson_kernel(2.5, "straight"),
    "straight lines": straight_lines,
}


def numpy(x):
    return ops.convert_to_numpy(x)


def points(count=5, dim=2, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype("float32")


def gaussian(ratio=1.0, sharpness=1.0, mass=1.0, drawn=1.0):
    """x0 + t z, whose ratio, density or mass may be wrong by a factor."""

    def log_density(x, x0, t):
        squares = ops.sum(((x - x0) / t[:, None]) ** 2, axis=-1)
        size = x.shape[-1]
        normal = 0.5 * size * (math.log(sharpness) - math.log(2 * np.pi)) - size * ops.log(t)
        return math.log(mass) + normal - 0.5 * sharpness * squares

    return greens_field(
        lambda x0, seed, t: x0 + drawn * t[:, None] * standard_normal(seed, 0, ops.shape(x0)),
        lambda x, x0, t: ratio * (x - x0) / t[:, None],
        log_density,
    )


# === The check ===
@pytest.mark.parametrize("name", KERNELS)
def test_the_examples_are_flows(name):
    found = KERNELS[name]().check()
    assert found["continuity"] < 1e-3
    assert abs(found["mass"]) < 0.01 + 5 * found["mass_error"] and found["mass_error"] < 0.05
    assert found["start"] < 0.05


@pytest.mark.parametrize("dim", [1, 3])
def test_the_poisson_kernel_is_a_flow_in_any_dimension(dim):
    assert poisson_kernel(1, "straight").check((dim,))["continuity"] < 1e-3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ratio": 1.1}, "continuity=0.0"),
        ({"ratio": -1.0}, "continuity=1"),
        ({"mass": 1.2}, "mass=-0.1"),
        ({"sharpness": 1.5}, "mass="),
        ({"drawn": 0.8}, "mass="),
    ],
)
def test_what_is_no_flow_is_refused(wrong, message):
    gaussian().check()
    with pytest.raises(ValueError, match=message):
        gaussian(**wrong).check()


def test_a_kernel_that_begins_wide_is_refused():
    def wide(t):
        return (0.5 + t)[:, None]

    flow = greens_field(
        lambda x0, seed, t: x0 + wide(t) * standard_normal(seed, 0, ops.shape(x0)),
        lambda x, x0, t: (x - x0) / wide(t),
        lambda x, x0, t: (
            -0.5 * ops.sum(((x - x0) / wide(t)) ** 2, -1)
            - 2 * ops.log(0.5 + t)
            - math.log(2 * np.pi)
        ),
    )
    with pytest.raises(ValueError, match="G1 is a point at t = 0 .* start=0.3"):
        flow.check()


def test_curves_that_end_elsewhere_are_refused():
    def line(x0, x1, t, scale=1.0, shift=0.0):
        return (1 - t[:, None]) * x0 + scale * t[:, None] * x1 + shift

    def inverse(x, x0, t):
        return (x - (1 - t[:, None]) * x0) / t[:, None]

    characteristics(line, inverse).check()
    for settings, message in (({"shift": 0.2}, r"0\) = x0 .* 0.2"), ({"scale": 2.0}, r"1\) = x1")):
        with pytest.raises(ValueError, match=message):
            characteristics(lambda x0, x1, t: line(x0, x1, t, **settings)).check()  # noqa: B023
    with pytest.raises(ValueError, match="inverse"):
        characteristics(line, lambda x, x0, t: 1.1 * inverse(x, x0, t)).check()


def test_what_is_missing_is_named():
    flow = characteristics(lambda x0, x1, t: x0 + t[:, None] * (x1 - x0))
    for call in (lambda: flow.field(points()), lambda: flow.target(points(), points(), 0.5)):
        with pytest.raises(ValueError, match="`inverse` of characteristics"):
            call()
    with pytest.raises(ValueError, match="sample to be a function"):
        greens_field(None, lambda x, x0, t: x)
    with pytest.raises(ValueError, match="curve to be a function"):
        characteristics(1.0)
    with pytest.raises(ValueError, match="D of at least 1"):
        poisson_kernel(0.5)
    with pytest.raises(ValueError, match="x0 of a float dtype"):
        straight_lines().sample(np.zeros((2, 2), "int32"), 0, 0.5)


# === What they are ===
@pytest.mark.parametrize("name", ["edm", "cosine", "straight"])
def test_the_heat_kernel_of_a_gaussian_is_the_equation_of_diffusion(name):
    mixture, schedule = Mixture([[0.3, -0.2]], [1.0], 0.5), schedules.get(name)
    data = mixture.sample(20000).astype("float32")
    x, t = points(4), np.full(4, 0.6, "float32")
    expected = numpy(mixture.denoiser(schedule, "velocity")(x, ops.convert_to_tensor(t)))
    found = numpy(heat_kernel(schedule).field(data)(x, t))
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.02)


def test_straight_lines_are_the_heat_kernel_of_their_schedule():
    data, x, t = points(50), points(6, seed=1), np.linspace(0.1, 0.9, 6).astype("float32")
    lines, heat = straight_lines(), heat_kernel("straight")
    np.testing.assert_allclose(
        numpy(lines.field(data)(x, t)), numpy(heat.field(data)(x, t)), rtol=1e-3, atol=1e-4
    )
    for first, second in zip(
        lines.training_pair(data, 3, 0.4), heat.training_pair(data, 3, 0.4), strict=True
    ):
        np.testing.assert_allclose(numpy(first), numpy(second), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_the_poisson_field_is_that_of_charges(dim):
    schedule = schedules.get("straight")  # alpha x0 is where the charge is; beta the height
    data, x, t = points(30, dim), 2 * points(7, dim, 1), np.linspace(0.1, 0.9, 7)
    found = numpy(poisson_kernel(1, schedule).field(data)(x, t.astype("float32")))
    for i in range(7):
        place = x[i] - (1 - t[i]) * data  # from each charge
        force = (np.sum(place**2, -1) + t[i] ** 2) ** (-(dim + 1) / 2)
        moved = -data + place / t[i]  # dx / dt of each line
        expected = force @ moved / force.sum()
        np.testing.assert_allclose(found[i], expected, rtol=1e-3, atol=1e-4)


def test_the_field_does_not_underflow():
    data = np.array([[0.0, 0.0], [1.0, 0.0]], "float32")
    velocity = heat_kernel("straight").field(data)
    x = np.array([[40.0, 0.0], [-30.0, 5.0]], "float32")  # thousands of deviations away
    t = 0.01
    found = numpy(velocity(x, t))
    nearest = np.array([[1.0, 0.0], [0.0, 0.0]])
    expected = -nearest + (x - 0.99 * nearest) / t
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_field_is_the_mean_of_the_targets():
    flow, data = poisson_kernel(3, "straight"), np.array([[-1.0], [1.0]], "float32")
    x0 = np.repeat(data, 200000, axis=0)
    x, target = (numpy(each)[:, 0] for each in flow.training_pair(x0, 0, 0.5))
    for place in (-0.4, 0.0, 0.7):
        near = np.abs(x - place) < 0.02
        expected = numpy(flow.field(data)(np.array([[place]], "float32"), 0.5))[0, 0]
        deviation = target[near].std() / np.sqrt(near.sum())
        assert abs(target[near].mean() - expected) < 4 * deviation + 0.01
    np.testing.assert_allclose(
        numpy(flow.target(x[:5, None], x0[:5], 0.5))[:, 0], target[:5], rtol=1e-4
    )


@pytest.mark.slow
def test_a_flow_leads_to_its_data():
    data = Mixture().sample(100, seed=3).astype("float32")
    noise = points(300, seed=4)
    velocity = straight_lines().field(data)
    settings = {"prediction": "velocity", "denoise": False}
    sample = compiled(ode_sample, velocity, "straight", 60, **settings)
    x = numpy(sample(noise).x)
    distance = np.min(np.linalg.norm(x[:, None] - data[None], axis=-1), axis=1)
    assert np.mean(distance > 0.05) < 0.02
    assert np.linalg.norm(x.mean(0) - data.mean(0)) < 4 * data.std() / np.sqrt(300)


def test_a_prior_of_ones_own():
    def uniform_log_density(x1):
        return ops.where(ops.all(ops.abs(x1) < 1, axis=-1), -2 * math.log(2.0), -math.inf)

    def draw(seed, shape):
        return ops.erf(standard_normal(seed, 0, shape) / 2**0.5)

    data = np.zeros((1, 2), "float32")
    flow = straight_lines((draw, uniform_log_density))
    x, velocity = (
        numpy(each) for each in flow.training_pair(np.zeros((500, 2), "float32"), 0, 0.5)
    )
    assert 0.4 < np.abs(x).max() < 0.5 and np.allclose(velocity, 2 * x, atol=1e-5)
    assert np.allclose(numpy(flow.field(data)(x[:3], 0.5)), 2 * x[:3], atol=1e-5)


# === The derivative in time ===
def test_the_derivative_in_time_is_that_of_each_row(rng):
    x = ops.convert_to_tensor(rng.normal(size=(4, 3)).astype("float32"))
    t = ops.convert_to_tensor(np.array([0.1, 0.2, 0.3, 0.4], "float32"))

    def function(t):
        return ops.sin(t[:, None] * x) + t[:, None] ** 2

    value, slope = value_and_derivative(function, t)
    x, t = numpy(x), numpy(t)[:, None]
    np.testing.assert_allclose(numpy(value), np.sin(t * x) + t**2, rtol=1e-5)
    np.testing.assert_allclose(numpy(slope), x * np.cos(t * x) + 2 * t, rtol=1e-4)


def test_training_pairs_are_the_same_when_compiled():
    def turn(x0, x1, t):
        angle = 0.5 * np.pi * t[:, None]
        return ops.cos(angle) * x0 + ops.sin(angle) * x1

    flow, x0 = characteristics(turn), points(8)
    expected = [numpy(each) for each in flow.training_pair(x0, 1, 0.3)]
    for function in compilations(lambda x0: flow.training_pair(x0, 1, 0.3)):
        for found, value in zip(function(ops.convert_to_tensor(x0)), expected, strict=True):
            np.testing.assert_allclose(numpy(found), value, rtol=1e-4, atol=1e-5)


def compilations(function):
    if keras.config.backend() == "jax":
        import jax

        return [jax.jit(function)]
    import tensorflow as tf

    return [tf.function(function, jit_compile=jit, autograph=False) for jit in (False, True)]
