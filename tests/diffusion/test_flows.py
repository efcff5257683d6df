import keras
import numpy as np
import pytest
from keras import ops
from mixture import Mixture, sliced_wasserstein

from keras_ext.diffusion import (
    as_denoiser,
    as_velocity,
    compiled,
    ddim,
    flow_sample,
    log_likelihood,
    ode_sample,
    schedules,
    straightness,
)
from keras_ext.diffusion.flow_sample import TABLEAUX
from keras_ext.diffusion.straightness import bends_of_curves

GMM5, STRAIGHT = Mixture(), schedules.get("straight")
VELOCITY = GMM5.denoiser(STRAIGHT, "velocity")
MEAN, STD = 0.7, 0.4


def gaussian_velocity(x, t):
    """Of data N(MEAN, STD^2) and independent noise, on the straight path, in NumPy's float64."""
    x, t = np.asarray(x, "float64"), np.asarray(t, "float64")[:, None]
    variance = (1 - t) ** 2 * STD**2 + t**2
    centred = x - (1 - t) * MEAN
    return t * centred / variance - MEAN - (1 - t) * STD**2 * centred / variance


def transported(x1):
    """Where the flow of `gaussian_velocity` ends: the map between two normal distributions."""
    return MEAN + STD * x1


# === flow_sample ===
def test_time_0_is_the_data_and_time_1_the_noise(rng):
    noise = rng.normal(size=(50, 3)).astype("float32")
    # With the other convention, time 1 the data, the first call would be at 0 and the sign opposite.
    seen = []

    def velocity(x, t):
        seen.append(float(np.asarray(t)[0]))
        return gaussian_velocity(x, t)

    found = flow_sample(velocity, noise, 400)
    np.testing.assert_allclose(found.x, transported(noise), atol=0.01)
    assert seen[0] == 1.0 and seen[-1] == pytest.approx(1 / 400) and found.calls == 400


def test_solvers_converge_with_their_orders(rng):
    noise = rng.normal(size=(300, 2)).astype("float32")
    wide = Mixture(std=0.4).denoiser(STRAIGHT, "velocity")  # in float32 thin modes hide the order

    def ends(steps, solver):
        result = compiled(flow_sample, wide, steps=steps, solver=solver)(noise)
        assert result.calls == steps * len(TABLEAUX[solver][0])
        return np.asarray(result.x)

    reference = ends(100, "rk4")
    for solver, order in {"euler": 1, "heun": 2, "midpoint": 2, "rk4": 4}.items():
        counts = (8, 16) if solver == "rk4" else (60, 120)
        errors = [np.median(np.abs(ends(steps, solver) - reference)) for steps in counts]
        assert abs(np.log2(errors[0] / errors[1]) - order) < 0.35, (solver, errors)


@pytest.mark.parametrize("solver", TABLEAUX)
def test_a_flow_goes_both_ways(solver, rng):
    noise = rng.normal(size=(50, 1))
    steps, far = {"euler": (300, 0.05), "rk4": (10, 1e-4)}.get(solver, (100, 1e-3))
    data = flow_sample(gaussian_velocity, noise, steps, solver).x
    back = flow_sample(gaussian_velocity, data, steps, solver, start=0.0, end=1.0).x
    np.testing.assert_allclose(back, noise, atol=far)
    np.testing.assert_allclose(data, transported(noise), atol=far)


@pytest.mark.parametrize("solver", TABLEAUX)
def test_steps_add_up_to_the_span_exactly(solver):
    x, steps = np.zeros((1, 1)), 64  # powers of 2: no rounding
    assert float(flow_sample(lambda x, t: 0 * x + 8.0, x, steps, solver).x[0, 0]) == -8.0
    span = {"start": 0.25, "end": 0.75}
    assert float(flow_sample(lambda x, t: 0 * x + 8.0, x, steps, solver, **span).x[0, 0]) == 4.0
    trajectory = flow_sample(
        lambda x, t: 0 * x + 1.0, x, 4, solver, return_trajectory=True
    ).trajectory
    expected = [0, -0.25, -0.5, -0.75, -1]
    np.testing.assert_allclose(np.asarray(trajectory)[:, 0, 0], expected, rtol=1e-7)  # 1 / 6, 1 / 3


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_it_gives_the_same(jit_compile, rng):
    noise = rng.normal(size=(6, 2)).astype("float32")
    settings = {"solver": "rk4", "return_trajectory": True}
    eager = flow_sample(VELOCITY, noise, 5, **settings)
    result = compiled(flow_sample, VELOCITY, steps=5, jit_compile=jit_compile, **settings)(noise)
    np.testing.assert_allclose(result.x, eager.x, atol=1e-5)
    np.testing.assert_allclose(result.trajectory, eager.trajectory, atol=1e-5)
    assert result.calls == eager.calls == 20 and result.trajectory.shape == (6, 6, 2)


def test_conditions_reach_the_velocity():
    noise, push = np.zeros((2, 1)), np.float32([[1.0], [2.0]])
    found = flow_sample(lambda x, t, push: push + 0 * x, noise, 3, conditions={"push": push})
    np.testing.assert_allclose(found.x, -push, rtol=1e-6)


def test_fewer_steps_of_the_mixture_are_as_far_as_the_specification_says():
    data = GMM5.sample(20000, seed=1)
    noise = np.random.default_rng(0).normal(size=data.shape).astype("float32")
    distances = {}
    for steps in (1, 4, 32):
        x = compiled(flow_sample, VELOCITY, steps=steps)(noise).x
        distances[steps] = sliced_wasserstein(np.asarray(x), data)
    # .701, .128 and .049 there, of a floor of .04
    assert abs(distances[1] - 0.701) < 0.03 and abs(distances[4] - 0.128) < 0.03
    assert distances[32] < 0.08


def test_a_flow_that_is_wrong_says_how():
    noise = np.zeros((2, 1))

    def late(x, t):
        return np.where(np.asarray(t)[:, None] < 0.5, np.nan, 0.0)

    for solver, step in (("euler", 3), ("heun", 2)):  # from 1: .75, .5, .25
        with pytest.raises(ValueError, match=f"first at step {step}"):
            flow_sample(late, noise, 4, solver)

    def late_tensor(x, t):
        return ops.where(t[:, None] < 0.5, float("nan"), 0.0 * x)

    with pytest.raises(ValueError, match="first at step 3"):
        compiled(flow_sample, late_tensor, steps=4)(noise)
    for arguments, message in (
        ({"steps": 0}, "steps"),
        ({"solver": "rk45"}, "solver of euler"),
        ({"start": 1.5}, "between 0, data, and 1"),
        ({"start": 0.5, "end": 0.5}, "that differ"),
        ({"noise": np.zeros((2,))}, "at least one axis|shape"),
        ({"velocity": lambda x, t: x[:, :0]}, "shape of its input"),
    ):
        arguments = {"velocity": late, "noise": noise, "steps": 2, **arguments}
        with pytest.raises(ValueError, match=message):
            flow_sample(**arguments)
    for sampler, schedule in ((flow_sample, "straight"), (ddim, None)):
        with pytest.raises(ValueError, match="Expected a schedule for a sampler that takes one"):
            compiled(sampler, late_tensor, schedule, 3)


# === Conversions ===
@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "velocity", "score"])
@pytest.mark.parametrize("name", ["cosine", "vp_continuous", "ve", "sub_vp", "straight"])
def test_any_denoiser_is_the_velocity_of_the_straight_path(name, prediction, rng):
    schedule = schedules.get(name)
    if prediction == "v" and not schedule.variance_preserving:
        return
    t = np.float32([0.01, 0.1, 0.35, 0.6, 0.9, 0.97])
    x = rng.normal(size=(6, 2)).astype("float32")
    velocity = as_velocity(GMM5.denoiser(schedule, prediction), schedule, prediction)
    exact = GMM5.denoiser(STRAIGHT, "velocity", np)(x, t)
    # Where one of x0 and eps is computed from the other, roundings grow by 1 / t or 1 / (1 - t);
    # the modes are 0.1 wide, so that the network's own input is some 1e-5 off.
    np.testing.assert_allclose(velocity(x, t), exact, atol=5e-4)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "velocity", "score"])
@pytest.mark.parametrize("name", ["cosine", "vp_continuous", "edm", "straight"])
def test_a_velocity_is_any_denoiser(name, prediction, rng):
    schedule = schedules.get(name)
    if prediction == "v" and not schedule.variance_preserving:
        return
    t = np.float32([0.02, 0.1, 0.35, 0.6, 0.9])
    alpha, beta = schedule.alpha_bar(t), schedule.beta_bar(t)
    x = (np.hypot(alpha, beta)[:, None] * rng.normal(size=(5, 2))).astype("float32")
    denoiser = as_denoiser(VELOCITY, schedule, prediction)
    found = denoiser(ops.convert_to_tensor(x), ops.convert_to_tensor(t))
    exact = GMM5.denoiser(schedule, prediction, np)(x, t)
    scale = np.maximum(1.0, np.abs(exact).max(-1, keepdims=True))
    np.testing.assert_allclose(found / scale, exact / scale, atol=1e-3)


def test_a_diffusion_model_and_its_flow_end_at_the_same_place(rng):
    schedule, noise = schedules.get("vp_continuous"), rng.normal(size=(20, 2)).astype("float32")
    denoiser = GMM5.denoiser(schedule, "v")
    # x of the schedule at 0.99 is (alpha + beta) z.
    alpha, beta = schedule.alpha_bar(0.99), schedule.beta_bar(0.99)
    settings = {"solver": "rk4", "prediction": "v", "start": 0.99, "end": 0.0}
    one = compiled(ode_sample, denoiser, schedule, 200, **settings)(noise).x
    velocity = as_velocity(denoiser, schedule, "v")
    start = {"start": float(beta / (alpha + beta))}
    other = compiled(flow_sample, velocity, steps=800, solver="rk4", **start)(
        noise / (alpha + beta)
    ).x
    assert np.median(np.abs(np.asarray(one) - np.asarray(other))) < 2e-3


def test_the_core_serves_a_velocity(rng):
    x = rng.normal(MEAN, STD, (20, 2)).astype("float32")

    def velocity(x, t):
        t = t[:, None]
        variance, centred = (1 - t) ** 2 * STD**2 + t**2, x - (1 - t) * MEAN
        return (t - (1 - t) * STD**2) * centred / variance - MEAN

    exact = -np.sum(0.5 * ((x - MEAN) / STD) ** 2 + 0.5 * np.log(2 * np.pi * STD**2), -1)
    for name, prediction in (("straight", "velocity"), ("cosine", "v")):
        denoiser = as_denoiser(velocity, name, prediction)
        nats = compiled(log_likelihood, denoiser, name, 20, prediction=prediction)(x).x
        np.testing.assert_allclose(nats, exact, atol=0.01)
    noise = rng.normal(size=(100, 2)).astype("float32")
    settings = {"solver": "rk4", "prediction": "velocity", "spacing": "linspace"}
    result = ode_sample(as_denoiser(velocity), "straight", noise, 40, **settings)
    np.testing.assert_allclose(result.x, transported(noise), atol=0.01)


def test_conversions_refuse_what_is_undefined():
    with pytest.raises(ValueError, match="prediction of eps"):
        as_velocity(VELOCITY, "cosine", "noise")
    with pytest.raises(ValueError, match="defined for"):
        as_denoiser(VELOCITY, "edm", "v")
    layer = keras.layers.Dense(2)
    layer.build((None, 2))
    assert as_velocity(layer, "cosine").variables == layer.variables == as_denoiser(layer).variables


# === Straightness ===
def test_straightness_is_that_in_closed_form(rng):
    # Of N(MEAN, STD^2): the flow goes along lines, but not at one speed between independent pairs.
    x1 = rng.normal(size=(20000, 1))
    x0 = transported(x1)
    t = (np.arange(20) + 0.5) / 20
    variance = (1 - t) ** 2 * STD**2 + t**2
    # On x_t = (1 - t) x0 + t x1 the velocity is x1 - x0 only where both agree.
    slope = (t - (1 - t) * STD**2) / variance * ((1 - t) * STD + t)
    expected = np.mean((1 - STD - slope) ** 2)

    def velocity(x, t):
        return ops.convert_to_tensor(gaussian_velocity(x, t).astype("float32"))

    found = straightness(velocity, (x0.astype("float32"), x1.astype("float32")))
    assert abs(found / expected - 1) < 0.05
    assert straightness(lambda x, t: 0 * x + 1.5, (0 * x1, 0 * x1 + 1.5)) == 0.0
    # Its own curves: x_t - (1 - t) MEAN = x1 variance^(1/2).
    slope = (t - (1 - t) * STD**2) / np.sqrt(variance)
    expected = np.mean((1 - STD - slope) ** 2)
    assert abs(straightness(velocity, x1.astype("float32")) / expected - 1) < 0.05


def test_straightness_of_the_mixture_is_that_of_the_specification():
    noise = np.random.default_rng(0).normal(size=(20000, 2)).astype("float32")
    bends = compiled(bends_of_curves, VELOCITY, steps=200)(noise)
    assert abs(np.mean(bends.x) - 0.714) < 0.02 and bends.calls == 200


def test_straightness_refuses(rng):
    x0, x1 = rng.normal(size=(2, 20, 1))
    for pairs, message in (
        ((x0, x1[:5]), "x1.shape=\\(5, 1\\)"),
        ((x0, x1 * np.nan), "finite"),
        (x1 * np.nan, "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            straightness(VELOCITY, pairs)
