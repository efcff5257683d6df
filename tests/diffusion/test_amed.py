import keras
import numpy as np
import pytest
from keras import ops
from mixture import Mixture

from keras_ext.diffusion import (
    AMEDPredictor,
    AMEDTrainer,
    DenoisingDiffusion,
    amed_sample,
    compiled,
    ode_sample,
    schedules,
)
from keras_ext.diffusion.autodiff import pulled_back
from keras_ext.models import MLPDenoiser

GMM5 = Mixture()
EDM, COSINE = schedules.get("edm"), schedules.get("cosine")
FINER = {"euler": "euler", "dpmpp": "dpmpp_2m", "ipndm": "ab3"}


@keras.saving.register_keras_serializable(package="test_amed")
def standard(x, t):
    """eps of standard normal data under `EDM`."""
    sigma = EDM.sigma(t)[:, None]
    return x * sigma / (1.0 + sigma**2)


def noises(count, seed=0, schedule=EDM, start=1.0):
    normal = np.random.default_rng(seed).normal(size=(count, 2))
    return (schedule.beta_bar(start) * normal).astype("float32")


def numpy(x):
    return ops.convert_to_numpy(x)


def drawn(steps, seed=0, **arguments):
    """A predictor with random numbers."""
    predictor = AMEDPredictor(steps, **arguments)
    rng = np.random.default_rng(seed)
    for weight in predictor.trainable_variables:
        weight.assign(rng.normal(size=weight.shape, scale=0.7))
    return predictor


def trainer_of(predictor, denoiser=None, **arguments):
    denoiser = denoiser or GMM5.denoiser(EDM)
    return AMEDTrainer(denoiser, EDM, predictor, **arguments)


# === Steps ===
@pytest.mark.parametrize("name", list(schedules.NAMES))
def test_the_time_of_a_tensor_sigma_has_a_derivative(name):
    schedule = schedules.get(name)
    sigma = np.array([0.05, 0.4, 3.0, 30.0])
    assert schedule.sigma(1.0) > 31
    step = 1e-4 * sigma
    slope = (schedule.t_of_sigma(sigma + step) - schedule.t_of_sigma(sigma - step)) / (2 * step)
    tensor = ops.convert_to_tensor(sigma.astype("float32"))
    times, product = pulled_back(schedule.t_of_sigma, tensor)
    np.testing.assert_allclose(times, schedule.t_of_sigma(sigma), atol=1e-6)
    np.testing.assert_allclose(product(ops.ones_like(times)), slope, rtol=2e-3)


@pytest.mark.parametrize("name", ["edm", "vp_continuous", "cosine"])
def test_an_untrained_predictor_is_the_geometric_midpoint(name):
    schedule = schedules.get(name)
    start = min(1.0, float(schedule.t_of_sigma(80.0)))
    noise, denoiser = noises(5, 0, schedule, start), GMM5.denoiser(schedule, "x0")
    settings = {"prediction": "x0", "return_trajectory": True}
    found = amed_sample(denoiser, schedule, noise, 4, AMEDPredictor(4), **settings)
    midpoint = ode_sample(denoiser, schedule, noise, 4, "midpoint", start=start, **settings)
    np.testing.assert_allclose(found.trajectory, midpoint.trajectory, atol=2e-4)
    assert found.calls == midpoint.calls == 9


@pytest.mark.parametrize("solver", FINER)
def test_the_other_solvers_are_those_on_the_grid_with_the_knots(solver):
    noise, denoiser, predictor = noises(5), GMM5.denoiser(EDM), drawn(4, scale_direction=0.0)
    predictor.table.assign(predictor.table * np.array([1.0, 0.0, 0.0]))
    found = amed_sample(denoiser, EDM, noise, 4, predictor, solver, denoise=False)
    times, rho = (
        EDM.grid(4, "karras", 1.0, 1e-3),
        0.01 + 0.98 / (1 + np.exp(-ops.convert_to_numpy(predictor.table)[:, 0])),
    )
    sigma = EDM.sigma(times)
    knots = EDM.t_of_sigma(sigma[1:] ** rho * sigma[:-1] ** (1 - rho))
    finer = np.append(np.stack([times[:-1], knots], axis=1).ravel(), times[-1])
    settings = {"spacing": list(finer), "denoise": False}
    expected = ode_sample(denoiser, EDM, noise, 8, FINER[solver], **settings)
    np.testing.assert_allclose(found.x, expected.x, atol=2e-4)
    assert found.calls == expected.calls == 8


@pytest.mark.parametrize("solver", ["dpm2", *FINER])
def test_the_analytic_first_step_of_standard_normal_data_is_exact(solver):
    noise, predictor = noises(5), drawn(3)
    called = amed_sample(standard, EDM, noise, 3, predictor, solver)
    analytic = amed_sample(standard, EDM, noise, 3, predictor, solver, analytic_first=True)
    np.testing.assert_allclose(analytic.x, called.x, rtol=1e-5, atol=1e-5)
    assert (called.calls, analytic.calls) == (7, 6)


@pytest.mark.parametrize("solver", ["dpm2", "dpmpp", "ipndm"])
def test_the_same_eagerly_and_compiled(solver):
    noise, denoiser = noises(4), GMM5.denoiser(EDM)
    predictor = drawn(3, features_dim=2, scale_direction=0.1, scale_time=0.1)
    settings = {"predictor": predictor, "solver": solver, "features_fn": lambda x, t: x / 80.0}
    settings |= {"analytic_first": True, "return_trajectory": True}
    eager = amed_sample(denoiser, EDM, noise, 3, **settings)
    assert eager.trajectory.shape == (5, 4, 2)
    np.testing.assert_array_equal(eager.trajectory[-1], eager.x)
    for jit_compile in (False, True):
        graph = compiled(amed_sample, denoiser, EDM, 3, jit_compile=jit_compile, **settings)(noise)
        np.testing.assert_allclose(graph.trajectory, eager.trajectory, atol=1e-3)
        assert graph.calls == eager.calls == 6
    part = amed_sample(denoiser, EDM, noise[:2], 3, **settings)
    np.testing.assert_allclose(part.x, eager.x[:2], atol=1e-5)


def test_a_nan_names_its_step():
    def denoiser(x, t):
        return ops.where(t[:, None] < 0.5, np.nan, 1.0) * standard(x, t)

    for run in (
        amed_sample,
        lambda *arguments: compiled(amed_sample, *arguments[:2], 4, predictor=arguments[4])(
            arguments[2]
        ),
    ):
        with pytest.raises(ValueError, match="step [12]"):
            run(denoiser, EDM, noises(2), 4, AMEDPredictor(4))


# === Training ===
@pytest.mark.parametrize("analytic_first", [False, True])
def test_the_update_is_the_gradient_of_the_loss(analytic_first):
    """Twice: by SGD of rate 1, and by differences of the loss."""
    predictor, x = drawn(2), noises(16)
    start = ops.convert_to_numpy(predictor.table)
    settings = {"solver": "euler" if analytic_first else "dpm2", "inner_steps": 1}
    trainer = trainer_of(predictor, analytic_first=analytic_first, **settings)
    trainer.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    differences = np.zeros_like(start)
    for place in np.ndindex(*start.shape):
        step = np.zeros_like(start)
        step[place] = 5e-3
        losses = []
        for sign in (1, -1):
            predictor.table.assign(start + sign * step)
            losses.append(float(ops.mean(trainer(x, training=False)[:, 0])))
        differences[place] = (losses[0] - losses[1]) / 0.01
    predictor.table.assign(start)
    logs = trainer.train_on_batch(x, return_dict=True)
    found = start - ops.convert_to_numpy(predictor.table)
    np.testing.assert_allclose(found, differences, rtol=0.02, atol=2e-3 * np.abs(found).max())
    assert logs["nan_gradients"] == 0


@pytest.mark.parametrize("solver", ["dpmpp", "ipndm"])
def test_multistep_solvers_go_on_from_their_own_points(solver):
    """The losses are the distances of a sampler's trajectory from the teacher's."""
    predictor, x, denoiser = drawn(3), noises(6), GMM5.denoiser(EDM)
    settings = {"return_trajectory": True, "denoise": False}
    found = amed_sample(denoiser, EDM, x, 3, predictor, solver, **settings).trajectory
    teacher = ode_sample(denoiser, EDM, x, 6, **settings).trajectory[::2]
    expected = np.sum(np.mean(np.square(found - teacher), axis=2), axis=0)
    trainer = trainer_of(predictor, solver=solver, inner_steps=1)
    np.testing.assert_allclose(trainer(x)[:, 0], expected, rtol=1e-3)
    before = ops.convert_to_numpy(predictor.table)
    trainer.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    trainer.fit(x, verbose=0)
    after = ops.convert_to_numpy(predictor.table)
    assert np.all(np.isfinite(after) & (after != before))


@pytest.fixture(scope="module")
def fitted():
    """Number of steps -> a predictor that was trained on the mixture, and the distance it leaves."""
    denoiser, held_out = GMM5.denoiser(EDM), noises(500, seed=1)
    exact = compiled(ode_sample, denoiser, EDM, 100, solver="rk4", denoise=False)(held_out).x

    def error(sampler, steps, **settings):
        run = compiled(sampler, denoiser, EDM, steps, denoise=False, **settings)
        return np.linalg.norm(numpy(run(held_out).x) - numpy(exact), axis=1).mean()

    found = {}
    for steps in (3, 4, 6):
        predictor = AMEDPredictor(steps)
        trainer = trainer_of(predictor, inner_steps=7)
        trainer.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.05, 150)))
        trainer.fit(np.tile(noises(300), (50, 1)), batch_size=100, verbose=0)
        found[steps] = predictor, error(amed_sample, steps, predictor=predictor), error
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "factor"), [(3, 5), (4, 5), (6, 3)])
def test_a_fitted_predictor_is_far_better_than_the_midpoint_and_heun(fitted, steps, factor):
    _, left, error = fitted[steps]
    for solver in ("midpoint", "heun"):
        assert left < error(ode_sample, steps, solver=solver) / factor


@pytest.mark.slow
def test_a_fitted_predictor_is_saved_and_loaded(fitted, tmp_path):
    predictor, _, _ = fitted[4]
    predictor.save(tmp_path / "predictor.keras")
    loaded, x = keras.saving.load_model(tmp_path / "predictor.keras"), noises(5, seed=2)
    arguments = GMM5.denoiser(EDM), EDM, x, 4
    found, expected = (amed_sample(*arguments, each).x for each in (loaded, predictor))
    np.testing.assert_array_equal(numpy(found), numpy(expected))
    untrained = amed_sample(*arguments, AMEDPredictor(4)).x
    assert np.abs(numpy(untrained) - numpy(expected)).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["dpm2", "ipndm"])
def test_xla_trains_as_a_graph_does(solver):
    tables = []
    for jit_compile in (False, True):
        predictor = drawn(3)
        trainer = trainer_of(predictor, solver=solver, inner_steps=1)
        trainer.compile(keras.optimizers.Adam(0.02), jit_compile=jit_compile)
        logs = trainer.fit(noises(64), batch_size=32, shuffle=False, verbose=0).history
        assert logs["nan_gradients"] == [0]
        tables.append(numpy(predictor.table))
    assert np.abs(tables[0] - numpy(drawn(3).table)).max() > 0.01
    np.testing.assert_allclose(*tables, atol=2e-3)


@pytest.mark.slow
def test_a_network_in_half_precision_trains_under_xla():
    keras.utils.set_random_seed(1)
    network = MLPDenoiser(2, 16, num_layers=1, dtype="mixed_float16")
    rng = np.random.default_rng(0)
    for weight in network.trainable_variables:
        weight.assign(rng.normal(size=weight.shape, scale=0.2))
    model = DenoisingDiffusion(network, "cosine", "v")
    predictor = drawn(2)
    trainer = AMEDTrainer(model.denoiser(), "cosine", predictor, prediction="v", inner_steps=3)
    trainer.compile(keras.optimizers.Adam(0.05), jit_compile=True)
    start = float(COSINE.t_of_sigma(80.0))
    logs = trainer.fit(noises(64, 0, COSINE, start), epochs=15, verbose=0, shuffle=False).history
    assert logs["loss"][-1] < 0.8 * logs["loss"][0] and not any(logs["nan_gradients"])
    assert keras.backend.standardize_dtype(predictor.table.dtype) == "float32"


@pytest.mark.slow
def test_two_replicas_train_one_predictor(two_replicas):
    """The update is that of the whole batch on one device."""
    found, losses, bad = two_replicas("diffusion.test_amed.on_two_replicas")
    predictor = drawn(2)
    trainer = trainer_of(predictor, standard_and_bent, inner_steps=1)
    trainer.compile(keras.optimizers.SGD(1e-4), jit_compile=False)
    expected = trainer.fit(noises(32), batch_size=32, epochs=3, shuffle=False, verbose=0).history
    np.testing.assert_allclose(losses, expected["loss"], rtol=1e-4)
    np.testing.assert_allclose(found, numpy(predictor.table), atol=1e-5)
    assert bad == [0, 0, 0] and losses[-1] < losses[0]


def standard_and_bent(x, t):
    return standard(x, t) + 0.1 * ops.sin(x)


def on_two_replicas(strategy):
    with strategy.scope():
        predictor = drawn(2)
        trainer = trainer_of(predictor, standard_and_bent, inner_steps=1)
        trainer.compile(keras.optimizers.SGD(1e-4), jit_compile=False)
    logs = trainer.fit(noises(32), batch_size=32, epochs=3, shuffle=False, verbose=0).history
    return numpy(predictor.table).tolist(), logs["loss"], logs["nan_gradients"]


def test_nan_gradients_are_counted_and_left_out():
    def denoiser(x, t):
        # The derivative at negative numbers is 0 times infinity.
        return standard(x, t) + 1e-3 * ops.sqrt(x[:, :1] * ops.cast(x[:, :1] > 0, x.dtype))

    x, predictor = noises(10), drawn(2)
    bad = int(np.sum(x[:, 0] < 0))
    start = ops.convert_to_numpy(predictor.table)
    trainer = trainer_of(predictor, denoiser, inner_steps=1)
    trainer.compile(keras.optimizers.SGD(1e-3), jit_compile=False)
    logs = trainer.fit(x, verbose=0, shuffle=False).history
    assert 0 < bad < 10 and logs["nan_gradients"] == [2 * bad]  # of rho, in both steps
    moved = ops.convert_to_numpy(predictor.table) - start
    assert np.isfinite(moved).all() and np.isfinite(logs["loss"]).all()
    predictor.table.assign(start)
    fine = trainer_of(predictor, denoiser, inner_steps=1)
    fine.compile(keras.optimizers.SGD(1e-3), jit_compile=False)
    fine.fit(x[x[:, 0] > 0], verbose=0)
    of_good = (10 - bad) / 10 * (ops.convert_to_numpy(predictor.table) - start)
    np.testing.assert_allclose(moved[:, 0], of_good[:, 0], rtol=1e-3, atol=1e-6)


def test_a_network_in_half_precision_with_features():
    gradients = []
    for dtype in ("float32", "mixed_float16"):
        keras.utils.set_random_seed(1)
        network = MLPDenoiser(2, 8, num_layers=1, dtype=dtype)
        rng = np.random.default_rng(0)
        for weight in network.trainable_variables:
            weight.assign(rng.normal(size=weight.shape, scale=0.3))
        before = network.get_weights()

        def denoiser(x, t, network=network):
            return network({"x": x, "t": t})

        predictor = drawn(2, features_dim=2)
        start = predictor.get_weights()
        settings = {"features_fn": lambda x, t: x, "prediction": "v", "inner_steps": 1}
        trainer = AMEDTrainer(denoiser, "cosine", predictor, **settings)
        trainer.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
        x = noises(16, 0, COSINE)
        logs = trainer.fit(x, verbose=0).history
        assert logs["nan_gradients"] == [0]
        pairs = zip(start, predictor.get_weights(), strict=True)
        gradients.append(np.concatenate([(a - b).ravel() for a, b in pairs]))
        for a, b in zip(before, network.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        found = amed_sample(denoiser, "cosine", x, 2, predictor, **dict(list(settings.items())[:2]))
        assert keras.backend.standardize_dtype(found.x.dtype) == "float32"
    scale = np.abs(gradients[0]).max()
    assert scale > 0
    np.testing.assert_allclose(gradients[1], gradients[0], atol=0.05 * scale)


def test_saved_and_loaded(tmp_path):
    for predictor in (drawn(2), drawn(2, features_dim=3, scale_time=0.0, hidden_dim=4)):
        predictor.save(tmp_path / "predictor.keras")
        loaded = keras.saving.load_model(tmp_path / "predictor.keras")
        inputs = {"step": np.array([0, 1]), "features": np.ones((2, 3), "float32")}
        inputs["sigma"] = np.array([[80.0, 3.0], [3.0, 0.01]], "float32")
        np.testing.assert_array_equal(loaded(inputs), predictor(inputs))
        assert loaded.get_config() == predictor.get_config()
    times = [1.0, 0.5, 0.1]
    settings = {"spacing": times, "teacher_times": [1.0, 0.7, 0.5, 0.2, 0.1], "inner_steps": 1}
    trainer = trainer_of(drawn(2), standard, solver="ipndm", analytic_first=True, **settings)
    trainer.compile(keras.optimizers.Adam(0.01))
    trainer.optimizer.build(trainer.trainable_variables)
    trainer.save(tmp_path / "trainer.keras")
    again, x = keras.saving.load_model(tmp_path / "trainer.keras"), noises(3)
    np.testing.assert_array_equal(again(x), trainer(x))
    assert again.get_config() == trainer.get_config()


def test_what_is_refused(tmp_path):
    x, three = noises(2), AMEDPredictor(3)
    for words, settings in [
        ("steps=3", {"steps": 4}),
        ("AMEDPredictor", {"predictor": 0.5}),
        ("euler, dpm2, dpmpp, ipndm", {"solver": "heun"}),
        ("end > 0", {"end": 0.0}),
        ("finite noise", {"noise": np.full((2, 2), np.nan)}),
        ("defined for", {"prediction": "v"}),
        ("features_fn", {"features_fn": lambda x, t: x}),
        ("features_dim=4", {"predictor": AMEDPredictor(3, 4), "features_fn": lambda x, t: x}),
    ]:
        arguments = {"noise": x, "steps": 3, "predictor": three, **settings}
        with pytest.raises(ValueError, match=words):
            amed_sample(standard, EDM, **arguments)
    with pytest.raises(ValueError, match="sigma is finite"):
        amed_sample(standard, "straight", x, 3, three, prediction="x0", start=1.0)
    for words, settings in [
        ("does not contain", {"teacher_times": np.linspace(1.0, 0.1, 7) ** 2}),
        ("= 7 teacher_times", {"teacher_times": np.linspace(1.0, 1e-3, 6)}),
        ("Expected teacher_times", {"spacing": [1.0, 0.6, 0.3, 0.1]}),
        ("teacher_solver", {"teacher_solver": "rk45"}),
        ("inner_steps", {"inner_steps": 0}),
        ("solver", {"solver": "midpoint"}),
    ]:
        with pytest.raises(ValueError, match=words):
            trainer_of(three, **{"inner_steps": 1, **settings})
    for arguments in [
        {"steps": 0},
        {"steps": 3, "scale_time": 1.0},
        {"steps": 3, "features_dim": 0},
    ]:
        with pytest.raises(ValueError, match="Expected"):
            AMEDPredictor(**arguments)
    with pytest.raises(ValueError, match="features and sigma"):
        AMEDPredictor(3, 2)({"step": np.array([0])})
    with pytest.raises(ValueError, match="can save"):
        trainer_of(three, denoiser=type("Closed", (), {"__call__": standard})()).get_config()


def test_the_variables_of_a_function_are_those_of_the_trainer_too():
    network = MLPDenoiser(2, hidden_dim=8, num_layers=1)
    model = DenoisingDiffusion(network, "edm", "x0")
    trainer = AMEDTrainer(model.denoiser(), "edm", AMEDPredictor(2), prediction="x0")
    found = {id(variable) for variable in trainer.non_trainable_variables}
    assert {id(variable) for variable in network.variables} <= found
    assert not found & {id(variable) for variable in trainer.predictor.trainable_variables}
    with pytest.raises(ValueError, match="Keras can save"):
        AMEDTrainer(lambda x, t: x, "edm", AMEDPredictor(2)).get_config()
