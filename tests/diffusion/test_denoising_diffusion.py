import child
import keras
import numpy as np
import pytest
from keras import ops

from keras_ext.diffusion import DenoisingDiffusion, ddim, nll_bound, schedules
from keras_ext.diffusion.data_checks import seems_fit
from keras_ext.diffusion.training_loss import (
    WEIGHTS,
    error_weight,
    target,
    training_times,
    validation_times,
)
from keras_ext.models import MLPDenoiser
from keras_ext.optimizers import GradientAccumulation, GuardedLossScale

COSINE = schedules.get("cosine")
TENSORFLOW = keras.backend.backend() == "tensorflow"
LABELS = np.arange(64, dtype="int32") % 3


@keras.saving.register_keras_serializable(package="test_diffusion")
class PerfectDenoiser(keras.layers.Layer):
    """eps of data N(mean, std^2), whatever the weight that it has for the sake of an optimizer."""

    def __init__(self, mean=0.3, std=0.5, **kwargs):
        super().__init__(**kwargs)
        self.mean, self.std = mean, std

    def build(self, *shapes):
        self.scale = self.add_weight((), "ones")

    def call(self, x, t):
        alpha, beta = COSINE.alpha_bar(t)[:, None], COSINE.beta_bar(t)[:, None]
        eps = beta * (x - alpha * self.mean) / (alpha**2 * self.std**2 + beta**2)
        return eps * self.scale


def perfect(dim=2, **arguments):
    inputs = {"x": keras.Input((dim,), name="x"), "t": keras.Input((), name="t")}
    network = keras.Model(inputs, PerfectDenoiser()(inputs["x"], inputs["t"]))
    return DenoisingDiffusion(network, **arguments)


def small(seed=0, dtype=None, num_classes=3, hidden=8, **arguments):
    keras.utils.set_random_seed(1)
    network = MLPDenoiser(2, hidden, num_layers=1, num_classes=num_classes, dtype=dtype)
    rng = np.random.default_rng(0)
    for weight in network.trainable_variables:  # the last ones begin as 0
        weight.assign(rng.normal(size=weight.shape, scale=0.3))
    return DenoisingDiffusion(network, seed=seed, **arguments)


def points(count=64, seed=0):
    return np.random.default_rng(seed).normal(0.3, 0.5, (count, 2)).astype("float32")


def numpy(x):
    return ops.convert_to_numpy(x)


# === The loss ===
@pytest.mark.parametrize("training", [True, False])
def test_the_loss_of_a_perfect_denoiser_is_that_in_closed_form(training):
    model = perfect(seed=0)
    losses = numpy(model(points(20000), training=training))
    t = 1 - 0.999 * (np.arange(5000) + 0.5) / 5000
    alpha, beta = COSINE.alpha_bar(t), COSINE.beta_bar(t)
    expected = np.mean(alpha**2 * 0.25 / (alpha**2 * 0.25 + beta**2))  # Var[eps | x_t]
    assert abs(losses.mean() - expected) < 4 * losses.std() / np.sqrt(len(losses))
    assert losses.std() / np.sqrt(len(losses)) < 0.02 * expected


def test_the_vlb_loss_of_a_perfect_denoiser_is_that_in_closed_form():
    model = perfect(seed=0, loss_weight="vlb", time_sampling="low_discrepancy")
    losses = numpy(model(points(50000), training=True))

    def integral(t):  # of -1/2 d snr Var[x0 | x_t], which is 1 / (4 + snr)
        return 0.5 * np.log(4 + 1 / COSINE.sigma(t) ** 2)

    expected = (integral(0.001) - integral(1.0)) / 0.999
    assert abs(losses.mean() - expected) < 4 * losses.std() / np.sqrt(len(losses))


@pytest.mark.parametrize("name", ["cosine", "straight", "edm"])
@pytest.mark.parametrize("loss_weight", WEIGHTS)
def test_weights_are_those_of_errors_of_the_data(name, loss_weight):
    schedule, t = schedules.get(name), np.array([0.02, 0.3, 0.9])
    alpha, beta = schedule.alpha_bar(t), schedule.beta_bar(t)
    snr, step = (alpha / beta) ** 2, 1e-6
    slope = (schedule.sigma(t + step) ** -2 - schedule.sigma(t - step) ** -2) / (2 * step)
    of_data = {
        "snr": snr,
        "min_snr": np.minimum(snr, 5),
        "edm": (1 / snr + 0.25) / (0.25 / snr),
        "vlb": -0.5 * slope,
    }
    # How far the data are off if the prediction is off by 1.
    factors = {"x0": 1 + 0 * t, "eps": beta / alpha, "score": beta**2 / alpha}
    if name == "cosine":
        factors["v"] = beta
    if name == "straight":
        factors["velocity"] = t
    for prediction, factor in factors.items():
        expected = of_data.get(loss_weight, factor**-2.0) * factor**2
        if loss_weight == "simple" and prediction == "score":
            expected = beta**2
        found = error_weight(schedule, prediction, loss_weight, t)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        found = error_weight(schedule, prediction, loss_weight, ops.cast(t, "float32"))
        np.testing.assert_allclose(numpy(found), expected, rtol=1e-4)


def test_targets_are_what_the_noisy_data_say(rng):
    x0, eps, t = rng.normal(size=(3, 2)), rng.normal(size=(3, 2)), np.array([0.1, 0.5, 0.9])
    tensors = [ops.convert_to_tensor(each.astype("float32")) for each in (x0, eps, t)]
    alpha, beta = COSINE.alpha_bar(t)[:, None], COSINE.beta_bar(t)[:, None]
    step = 1e-6
    later, before = (
        COSINE.alpha_bar(t + s)[:, None] * x0 + COSINE.beta_bar(t + s)[:, None] * eps
        for s in (step, -step)
    )
    expected = {
        "eps": eps,
        "x0": x0,
        "v": alpha * eps - beta * x0,
        "score": -eps / beta,
        "velocity": (later - before) / (2 * step),
    }
    for prediction, value in expected.items():
        found = numpy(target(COSINE, prediction, *tensors))
        np.testing.assert_allclose(found, value, rtol=1e-3, atol=1e-4)


def test_times(rng):
    draws = ops.convert_to_tensor(rng.random(256).astype("float32"))
    times = np.sort(numpy(training_times("low_discrepancy", 0.0, draws)))
    gaps = np.diff(times)
    np.testing.assert_allclose(gaps, 1 / 256, atol=1e-6)
    uniform = numpy(training_times("uniform", 0.001, draws))
    assert uniform.min() > 0.001 and uniform.max() <= 1
    logits = numpy(training_times("logit_normal", 0.0, draws))
    logits = np.log(logits / (1 - logits))
    assert abs(logits.mean()) < 4 / 16 and abs(logits.std() - 1) < 4 / 16
    for count in (1, 7, 64, 256):  # any number of samples is evenly spread
        times = np.sort(numpy(validation_times(count, 0.0)))
        assert np.diff([0, *times, 1]).max() < 2.7 / (count + 1)


def test_a_share_of_the_labels_is_dropped():
    class Seen(keras.Model):
        num_classes = 3

        def __init__(self):
            super().__init__()
            self.built = True

        def call(self, inputs):
            self.labels = inputs["label"]
            return inputs["x"]

    model = DenoisingDiffusion(Seen(), cond_dropout=0.3, seed=0)
    labels = np.arange(20000) % 3
    model({"x": points(20000), "label": labels}, training=True)
    seen = numpy(model.network.labels)
    assert abs(np.mean(seen == 3) - 0.3) < 4 * np.sqrt(0.21 / 20000)
    assert np.all((seen == labels) | (seen == 3))
    model({"x": points(9), "label": labels[:9]}, training=False)
    np.testing.assert_array_equal(numpy(model.network.labels), labels[:9])


# === Training ===
def test_validation_does_not_vary_and_training_does():
    model, x = small(), points()
    model.compile("adam")
    first, second = (model.evaluate(x, LABELS, batch_size=32, verbose=0) for _ in range(2))
    assert first == second
    batch = {"x": x, "label": LABELS}
    assert np.any(numpy(model(batch, training=True)) != numpy(model(batch, training=True)))
    found = model.predict(batch, batch_size=32, verbose=0)
    assert found.shape == (64,) and np.isclose(found.mean(), first, rtol=1e-5)


def test_sample_weights_and_regularisers_count():
    model, x = small(), points()
    model.compile("adam")
    each = model.predict({"x": x, "label": LABELS}, batch_size=64, verbose=0)
    weights = np.where(np.arange(64) < 16, 1.0, 0.0).astype("float32")
    found = model.evaluate(x, LABELS, sample_weight=weights, batch_size=64, verbose=0)
    assert np.isclose(found, np.mean(each * weights), rtol=1e-5)
    plain = small(num_classes=None)
    plain.compile("adam")
    of_each = plain.predict(x, batch_size=64, verbose=0)
    found = plain.evaluate(x, sample_weight=weights, batch_size=64, verbose=0)
    assert np.isclose(found, np.mean(of_each * weights), rtol=1e-5)
    kernel = model.network.get_layer("Input-Dense")
    kernel.kernel_regularizer = keras.regularizers.L2(0.5)
    kernel.kernel.regularizer = kernel.kernel_regularizer
    model.compile("adam")
    penalty = 0.5 * np.sum(np.square(numpy(kernel.kernel)))
    found = model.evaluate(x, LABELS, batch_size=64, verbose=0)
    assert np.isclose(found, each.mean() + penalty, rtol=1e-5)


@pytest.mark.slow
def test_a_model_of_one_point_draws_that_point():
    model = small(num_classes=None, hidden=64, prediction="v", time_sampling="low_discrepancy")
    model.compile(keras.optimizers.Adam(5e-3, use_ema=True, ema_momentum=0.9))
    x = np.tile(np.float32([[0.6, -0.4]]), (64, 1))
    model.fit(x, epochs=200, verbose=0)
    for sampler in ("heun", "ddpm"):
        samples = model.sample(16, sampler=sampler, steps=10, seed=0, clip_x0=None).x
        far = np.abs(numpy(samples) - x[:16])  # some noise is larger than most that it saw
        assert np.median(far) < 0.05 and np.mean(far > 0.1) < 0.2
    losses = model.predict(x, verbose=0)
    assert np.median(losses) < 0.02  # eps is known where the data are one point


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", ["jit", "float16", "bfloat16", "accumulation", "dict", "data set", "eagerly"]
)
def test_it_trains(how):
    dtype = {"float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}.get(how)
    model, x = small(dtype=dtype, cond_dropout=0.2), points(256)
    labels, optimizer = np.arange(256) % 3, keras.optimizers.Adam(0.01)
    optimizer = GuardedLossScale(optimizer) if how == "float16" else optimizer
    optimizer = GradientAccumulation(optimizer, 2) if how == "accumulation" else optimizer
    eagerly = how == "eagerly" and TENSORFLOW
    model.compile(optimizer, jit_compile=how == "jit", run_eagerly=eagerly)
    before = model.evaluate(x, labels, verbose=0)
    data = (x, labels)
    if how == "dict":
        data = ({"x": x, "label": labels},)
    if how == "data set":
        tf = pytest.importorskip("tensorflow")
        data = (tf.data.Dataset.from_tensor_slices((x, labels)).batch(32),)
    history = model.fit(*data, epochs=3, verbose=0, shuffle=how != "data set")
    assert np.isfinite(history.history["loss"]).all()
    assert model.evaluate(x, labels, verbose=0) < 0.9 * before
    assert model(x[:2]).dtype in ("float32", keras.backend.standardize_dtype("float32"))
    np.testing.assert_allclose(numpy(model.data_range), [x.min(), x.max()])


@pytest.mark.parametrize(("dtype", "distance"), [("mixed_float16", 0.01), ("mixed_bfloat16", 0.1)])
def test_half_precision_samples_are_near_those_of_float32(dtype, distance):
    model = small(prediction="v")
    half = small(dtype=dtype, prediction="v")
    for variable, value in zip(half.network.variables, model.network.variables, strict=True):
        variable.assign(value)
    x, y = (m.sample(32, "ddim", 10, label=1, guidance=2.0, seed=0).x for m in (model, half))
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    error = np.abs(numpy(x) - numpy(y)).max() / np.abs(numpy(x)).max()
    assert 0 < error < distance
    losses = [numpy(m(points())) for m in (model, half)]
    np.testing.assert_allclose(*losses, rtol=10 * distance)


# === Averages ===
class DrawInTraining(keras.callbacks.Callback):
    """Keeps the weights of each step, and draws after the third."""

    def __init__(self):
        super().__init__()
        self.steps, self.drawn = [], {}

    def on_train_batch_end(self, batch, logs=None):
        sync(self.model)
        self.steps.append([numpy(v) for v in self.model.network.variables])
        if batch == 2:
            for use_ema in (True, False):
                result = self.model.sample(4, steps=3, seed=0, use_ema=use_ema)
                self.drawn[use_ema] = numpy(result.x)
            self.range = numpy(self.model.data_range)
            after = [numpy(v) for v in self.model.network.variables]
            assert all(map(np.array_equal, self.steps[-1], after))


def test_averages_are_sampled_in_training_and_do_not_touch_the_weights():
    def trained(*callbacks):
        model = small(prediction="v")
        adam = keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5)
        model.compile(GradientAccumulation(adam, 1))
        model.fit(points(128), LABELS[np.arange(128) % 64], verbose=0, callbacks=callbacks)
        return model

    callback = DrawInTraining()
    model, plain = trained(callback), trained()
    for a, b in zip(model.network.variables, plain.network.variables, strict=True):
        np.testing.assert_array_equal(numpy(a), numpy(b))
    average = callback.steps[0]  # Keras': the first weights, then half of the new ones
    for new in callback.steps[1:3]:
        average = [0.5 * a + 0.5 * b for a, b in zip(average, new, strict=True)]
    reference = small(prediction="v")
    reference.data_range.assign(callback.range)
    for use_ema, values in ((True, average), (False, callback.steps[2])):
        reference.network.set_weights(values)
        expected = numpy(reference.sample(4, steps=3, seed=0).x)
        np.testing.assert_allclose(callback.drawn[use_ema], expected, atol=1e-4)
    assert np.abs(callback.drawn[True] - callback.drawn[False]).max() > 1e-3


def sync(model):
    return getattr(model, "jax_state_sync", lambda: None)()


def test_before_the_first_step_there_are_no_averages():
    model = small()
    expected = numpy(model.sample(3, steps=2, seed=0).x)
    model.compile(keras.optimizers.Adam(use_ema=True))
    model.optimizer.build(model.trainable_variables)
    np.testing.assert_array_equal(numpy(model.sample(3, steps=2, seed=0).x), expected)


# === Sampling ===
@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "sde", "edm_stochastic", "heun", "rk45"])
def test_a_seed_gives_the_same_samples_each_time_and_other_seeds_others(sampler):
    model = perfect()
    first, again, other = (
        numpy(model.sample(5, sampler=sampler, steps=4, seed=seed).x) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).min() > 0
    (kept,) = model.kept_samplers.functions.values()
    if TENSORFLOW and sampler != "rk45":  # some seconds
        model.compile(run_eagerly=True)
        eager = numpy(model.sample(5, sampler=sampler, steps=4, seed=0).x)
        np.testing.assert_allclose(first, eager, atol=1e-5 * np.abs(first).max())


@pytest.mark.slow
def test_a_seed_gives_the_same_samples_under_xla():
    model = small(prediction="v")
    plain, compiled = (
        numpy(model.sample(5, "ddpm", 5, label=1, seed=0, jit_compile=jit).x)
        for jit in (False, True)
    )
    np.testing.assert_allclose(plain, compiled, atol=1e-4)


def test_samples_of_a_perfect_denoiser_have_the_mean_and_variance_of_the_data():
    x = numpy(perfect().sample(4000, "heun", 20, seed=0).x)
    assert abs(x.mean() - 0.3) < 4 * 0.5 / np.sqrt(8000)
    assert abs(x.std() - 0.5) < 0.01 + 4 * 0.5 / np.sqrt(16000)


def test_guidance_is_the_formula_and_the_null_label_is_num_classes():
    model = small(prediction="v")
    noise, label = points(6).astype("float32"), np.array([0, 1, 2, 0, 1, 2])
    denoiser, null = model.denoiser(), np.full(6, 3)

    def by_hand(x, t):
        free, told = denoiser(x, t, label=null), denoiser(x, t, label=label)
        return free + 2.5 * (told - free)

    expected = ddim(by_hand, COSINE, noise, 4, prediction="v").x
    found = model.sample(noise, steps=4, label=label, guidance=2.5).x
    np.testing.assert_allclose(numpy(found), numpy(expected), atol=1e-5)
    told, one, zero, free = (
        numpy(model.sample(noise, steps=4, label=each, guidance=scale).x)
        for each, scale in ((label, None), (label, 1.0), (label, 0.0), (None, None))
    )
    np.testing.assert_array_equal(told, one)
    np.testing.assert_allclose(zero, free, atol=1e-5)
    assert np.abs(told - free).max() > 0.01
    # One function without a label, one with, one with guidance of whatever scale.
    assert len(model.kept_samplers.functions) == 3


def test_predicted_data_stay_in_the_range_of_the_data():
    model = small()
    model.compile("adam")
    x = np.clip(points(), -0.5, 0.75)
    model.fit(x, LABELS, verbose=0)
    samples = numpy(model.sample(64, steps=3, seed=0).x)
    assert samples.min() >= -0.5 - 1e-5 and samples.max() <= 0.75 + 1e-5
    assert np.abs(numpy(model.sample(64, steps=3, seed=0, clip_x0=None).x)).max() > 10


@pytest.mark.parametrize("name", ["straight", "edm"])
def test_networks_see_inputs_of_moderate_size_and_samplers_the_state(name):
    schedule = schedules.get(name)
    model = small(schedule=name, prediction="x0", num_classes=None)
    x, t = 3.0 * points(4), np.float32([0.1, 0.5, 0.9, 1.0])
    scale = np.hypot(schedule.alpha_bar(t), schedule.beta_bar(t))[:, None]
    seen = ops.convert_to_tensor((x / scale).astype("float32"))
    expected = model.network({"x": seen, "t": ops.convert_to_tensor(t)})
    found = model.denoiser()(ops.convert_to_tensor(x), ops.convert_to_tensor(t))
    np.testing.assert_allclose(numpy(found), numpy(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "sampler", "settings", "time"),
    [
        ("edm", "ddim", {}, 1.0),
        ("ve", "ddpm", {"spacing": "leading"}, 0.751),
        ("ve", "ddim", {"spacing": [0.6, 0.4, 0.2, 0.1, 0.0]}, 0.6),
        ("cosine", "edm_stochastic", {}, schedules.get("cosine").t_of_sigma(80.0)),
        ("cosine", "heun", {"start": 0.9}, 0.9),
    ],
)
def test_the_first_noise_is_that_of_the_first_knot(name, sampler, settings, time):
    model = small(schedule=name, prediction="x0", num_classes=None)
    settings = {"return_trajectory": True, "seed": 0, **settings}
    states = numpy(model.sample(1000, sampler, 4, **settings).trajectory)
    assert abs(states[0].std() / schedules.get(name).beta_bar(time) - 1) < 0.1


def test_only_the_last_samplers_are_kept():
    model = small(prediction="x0", num_classes=None)
    model.kept_samplers.functions = {i: None for i in range(16)}
    model.sample(1, steps=1)
    assert len(model.kept_samplers.functions) == 16 and 0 not in model.kept_samplers.functions


# === The bound ===
@pytest.mark.parametrize("name", ["cosine", "vp_continuous", "straight"])
def test_the_bound_of_a_perfect_denoiser_is_the_likelihood(name):
    schedule = schedules.get(name)
    prediction = "x0" if name == "straight" else "eps"

    def denoiser(x, t):
        alpha, beta = schedule.alpha_bar(t)[:, None], schedule.beta_bar(t)[:, None]
        eps = beta * (x - alpha * 0.3) / (alpha**2 * 0.25 + beta**2)
        x0 = 0.3 + 0.25 * alpha * (x - alpha * 0.3) / (alpha**2 * 0.25 + beta**2)
        return x0 if prediction == "x0" else eps

    x = np.random.default_rng(0).normal(0.3, 0.5, (4000, 3)).astype("float32")
    exact = np.sum(0.5 * ((x - 0.3) / 0.5) ** 2 + 0.5 * np.log(2 * np.pi * 0.25), -1)
    bound = numpy(nll_bound(denoiser, schedule, x, 50, prediction, seed=0))
    gap = bound - exact
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(len(x)) + 0.01
    assert gap.std() < 4  # noise of the estimate, of 3 numbers

    def worse(x, t):
        return denoiser(x, t) + 0.3

    assert np.mean(numpy(nll_bound(worse, schedule, x, 50, prediction, seed=0)) - exact) > 0.1


def test_the_bound_of_two_equally_likely_levels_is_one_bit():
    def denoiser(x, t):
        alpha, beta = COSINE.alpha_bar(t)[:, None], COSINE.beta_bar(t)[:, None]
        x0 = 0.5 * ops.tanh(0.5 * alpha * x / beta**2)
        return x0

    x = np.random.default_rng(0).choice([-0.5, 0.5], (4000, 3)).astype("float32")
    bound = numpy(nll_bound(denoiser, COSINE, x, 50, "x0", width=1.0, seed=0))
    bits = bound / (3 * np.log(2))
    assert abs(bits.mean() - 1) < 4 * bits.std() / np.sqrt(len(x)) + 1e-3
    assert bits.std() < 1


def test_the_bound_of_the_model_does_not_depend_on_its_batches():
    model, x = perfect(), points(3000)
    bounds = model.nll_bound(x, seed=0, batch_size=1000, steps=30)
    whole = model.nll_bound(x, seed=0, batch_size=3000, steps=30)
    np.testing.assert_allclose(bounds[:1000], whole[:1000], rtol=1e-4, atol=1e-3)
    exact = np.sum(0.5 * ((x - 0.3) / 0.5) ** 2 + 0.5 * np.log(2 * np.pi * 0.25), -1)
    gap = bounds - exact
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(3000) + 0.01


def test_the_likelihood_of_the_model_is_that_of_its_equation():
    model, x = perfect(), points(30)
    exact = -np.sum(0.5 * ((x - 0.3) / 0.5) ** 2 + 0.5 * np.log(2 * np.pi * 0.25), -1)
    found = model.log_likelihood(x, steps=20, batch_size=20)
    assert found.shape == (30,) and np.abs(found - exact).max() < 0.01
    guessed = model.log_likelihood(x, steps=20, divergence="hutchinson", probes=4, seed=1)
    assert np.abs(guessed - exact).max() < 0.01  # the Jacobian is a multiple of the identity
    told = small(prediction="v")
    found = [told.log_likelihood(x[:2], label=label, steps=3) for label in (0, 1)]
    assert np.abs(found[0] - found[1]).max() > 1e-3
    if TENSORFLOW:
        model.compile(run_eagerly=True)
        eager = model.log_likelihood(x[:3], steps=20)
        np.testing.assert_allclose(eager, model.log_likelihood(x[:3], steps=20), atol=1e-3)


# === Saving ===
def test_config():
    arguments = {
        "prediction": "velocity",
        "loss_weight": "min_snr",
        "time_sampling": "logit_normal",
        "cond_dropout": 0.25,
        "seed": 3,
        "schedule": schedules.get("straight"),
    }
    model = small(**arguments)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    for name, value in arguments.items():
        assert getattr(again, name) == value
    assert again.num_classes == 3 and again.sample_shape == (2,)


@pytest.mark.slow
def test_a_fresh_process_draws_the_same_samples(tmp_path):
    model = small(prediction="v", cond_dropout=0.1)
    adam = keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.9)
    model.compile(GuardedLossScale(adam))
    drawn = {}

    def save(name):
        path = str(tmp_path / name)
        model.save(path)
        drawn[path] = numpy(model.sample(4, "ddpm", 5, label=1, guidance=2.0, seed=0).x)

    class Save(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                sync(self.model)
                save("in_training.keras")

    model.fit(points(), LABELS, epochs=2, callbacks=[Save()], verbose=0)
    save("after_training.keras")
    with child.start() as run:
        for path, expected in drawn.items():
            again = run("diffusion.test_denoising_diffusion.draw", path=path)
            np.testing.assert_array_equal(np.float32(again), expected)


def draw(path):
    model = keras.saving.load_model(path)
    return numpy(model.sample(4, "ddpm", 5, label=1, guidance=2.0, seed=0).x).tolist()


# === Replicas ===
@pytest.mark.slow
def test_two_replicas_train_and_draw_noise_of_their_own(two_replicas):
    losses, same = two_replicas("diffusion.test_denoising_diffusion.on_two_replicas")
    assert losses[-1] < 0.9 * losses[0] and not same


def on_two_replicas(strategy):
    with strategy.scope():
        model = small(num_classes=None)
        model.compile(keras.optimizers.Adam(0.01, use_ema=True), jit_compile=False)
    before = model.evaluate(points(256), verbose=0)
    model.fit(points(256), epochs=10, verbose=0)
    after = model.evaluate(points(256), verbose=0)
    assert np.isfinite(numpy(model.sample(4, steps=3, seed=0).x)).all()

    def each():
        return model(ops.zeros((3, 2)), training=True)

    # Neither within a step nor between one replica's step and another's next.
    losses = [numpy(loss) for _ in range(3) for loss in strategy.run(each).values]
    same = any(np.array_equal(a, b) for i, a in enumerate(losses) for b in losses[:i])
    return [before, after], same


# === What is refused ===
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 2), "uint8"), "float dtype"),
        (np.full((4, 2), np.nan, "float32"), r"x\[\(0, 0\)\]=nan"),
        (np.full((4, 2), 255.0, "float32"), "images / 127.5 - 1"),
        (np.zeros((4, 3), "float32"), r"shape \(b, 2\)"),
        (np.zeros((4,), "float32"), r"shape \(b, 2\)"),
        (np.zeros((0, 2), "float32"), "at least one sample"),
    ],
)
def test_bad_data(x, message):
    model = small()
    model.compile("adam")
    for refused in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=message):
            refused(x, np.zeros(len(x), "int32"), verbose=0)
    with pytest.raises(ValueError, match=message):
        model.nll_bound(x)


def test_bad_labels():
    model, x = small(), points(4)
    model.compile("adam")
    for label, message in (
        ([0, 1, 2, 4], "from 0 to 2, or 3 for no class"),
        ([0, -1, 2, 1], "labels from -1"),
        ([0.5, 1, 2, 1], "integer dtype"),
        ([0, 1], r"shape \(4,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(x, np.array(label), verbose=0)
        with pytest.raises(ValueError, match=message):
            model.sample(4, label=label)
    with pytest.raises(ValueError, match="Expected labels: the network has classes"):
        model.fit(x, verbose=0)
    plain = small(num_classes=None)
    plain.compile("adam")
    with pytest.raises(ValueError, match="Expected no labels"):
        plain.fit(x, LABELS[:4], verbose=0)
    with pytest.raises(ValueError, match="Expected no labels"):
        plain.sample(2, label=0)
    with pytest.raises(ValueError, match="Expected a label"):
        model.sample(2, guidance=3.0)


class NoStep(keras.callbacks.Callback):
    """Training has not begun when it is told what is wrong."""

    def on_train_begin(self, logs=None):
        raise AssertionError("begun")


def test_bad_validation_data_are_refused_before_the_first_step():
    model, x = small(), points(4)
    label, weights = LABELS[:4], np.ones(3)
    model.compile("adam")
    for validation, message in (
        ((x, np.array([0, 1, 2, 4])), "from 0 to 2, or 3 for no class"),
        ((x, label[:3]), r"shape \(4,\)"),
        ((255 * x, label), "images / 127.5 - 1"),
        (({"x": x[:, :1], "label": label},), r"shape \(b, 2\)"),
        ((x * np.nan, label), "=nan"),
        (x, "Expected labels: the network has classes"),
        ((x, label, weights), "one weight for each sample.*4.*of 3"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(x, label, validation_data=validation, callbacks=[NoStep()], verbose=0)
    with pytest.raises(ValueError, match="one weight for each sample"):
        model.fit(x, label, sample_weight=weights, callbacks=[NoStep()], verbose=0)
    with pytest.raises(ValueError, match="one weight for each sample"):
        model.evaluate(x, label, 2, 0, weights)  # by place


def test_weights_of_validation_data_count():
    model, x, other = small(num_classes=None), points(), points(32, seed=1)
    weights = (np.arange(32) < 5).astype("float32")
    model.compile(keras.optimizers.SGD(0.0))
    expected = model.evaluate(other, sample_weight=weights, verbose=0)
    assert abs(expected / model.evaluate(other, verbose=0) - 1) > 0.01
    history = model.fit(x, epochs=2, validation_data=(other, None, weights), verbose=0).history
    np.testing.assert_allclose(history["val_loss"], expected, rtol=1e-6)


def test_of_what_cannot_be_read_the_loss_is_nan():
    model, x, label = small(), points(4), np.array([0, 3, 4, -1])
    fine = [numpy(seems_fit(x, each, 3)).tolist() for each in (label, label[:, None])]
    assert fine == 2 * [[True, True, False, False]]
    assert np.isfinite(numpy(model({"x": x, "label": LABELS[:4]}))).all()
    assert np.isnan(numpy(model({"x": x + 7.0, "label": LABELS[:4]}))).all()


def test_bad_arguments():
    model = small()
    for arguments, message in (
        ({"steps": 0}, "steps"),
        ({"steps": 1001}, "1000 steps"),
        ({"sampler": "newton"}, "sampler of ddim"),
        ({"clip_x0": "image"}, "clip_x0 of data"),
        ({"n_or_noise": 0}, "n_or_noise"),
        ({"n_or_noise": np.zeros((2, 3), "float32")}, r"shape \(b, 2\)"),
        ({"n_or_noise": np.full((2, 2), np.nan)}, "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            model.sample(**{"n_or_noise": 2, **arguments})
    for arguments, message in (
        ({"loss_weight": "snr2"}, "loss_weight of simple"),
        ({"time_sampling": "beta"}, "time_sampling of uniform"),
        ({"prediction": "noise"}, "prediction of eps"),
        ({"schedule": "straight"}, 'prediction "eps" says nothing'),
        ({"schedule": "edm", "prediction": "v"}, "defined for"),
        ({"cond_dropout": 1.0}, r"in \[0, 1\)"),
        ({"num_classes": None, "cond_dropout": 0.1}, "without `num_classes`"),
    ):
        with pytest.raises(ValueError, match=message):
            small(**arguments)
    with pytest.raises(ValueError, match="has its weights"):
        DenoisingDiffusion(lambda x: x)
    model.compile("adam", loss="mse")
    with pytest.raises(ValueError, match="without a loss"):
        model.fit(points(), LABELS, verbose=0)


def test_a_network_that_gives_nan_names_the_step():
    model = small(num_classes=None)
    model.network.get_layer("Input-Dense").kernel.assign(np.full((2, 8), np.nan))
    with pytest.raises(ValueError, match="first at step 0"):
        model.sample(2, steps=3)
