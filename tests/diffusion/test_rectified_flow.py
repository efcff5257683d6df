import child
import keras
import numpy as np
import pytest
from keras import ops

from keras_ext.diffusion import (
    RectifiedFlow,
    compiled,
    flow_sample,
    log_likelihood,
    ode_sample,
    schedules,
)
from keras_ext.models import MLPDenoiser
from keras_ext.optimizers import GuardedLossScale

TENSORFLOW = keras.backend.backend() == "tensorflow"
MEAN, STD = 0.3, 0.5
LABELS = np.arange(64, dtype="int32") % 3


@keras.saving.register_keras_serializable(package="test_rectified_flow")
class PerfectVelocity(keras.layers.Layer):
    """E[eps - x0 | x_t] of data N(MEAN, STD^2), whatever the weight that it has for an optimizer."""

    def build(self, *shapes):
        self.scale = self.add_weight((), "ones")

    def call(self, x, t):
        t = t[:, None]
        variance, centred = (1 - t) ** 2 * STD**2 + t**2, x - (1 - t) * MEAN
        return ((t - (1 - t) * STD**2) * centred / variance - MEAN) * self.scale


@keras.saving.register_keras_serializable(package="test_rectified_flow")
def squared(x0, x1, t):
    return x0 + t**2 * (x1 - x0)


def perfect(dim=2, **arguments):
    inputs = {"x": keras.Input((dim,), name="x"), "t": keras.Input((), name="t")}
    network = keras.Model(inputs, PerfectVelocity()(inputs["x"], inputs["t"]))
    return RectifiedFlow(network, **arguments)


def small(seed=0, dtype=None, num_classes=None, hidden=8, **arguments):
    keras.utils.set_random_seed(1)
    network = MLPDenoiser(2, hidden, num_layers=1, num_classes=num_classes, dtype=dtype)
    rng = np.random.default_rng(0)
    for weight in network.trainable_variables:  # the last ones begin as 0
        weight.assign(rng.normal(size=weight.shape, scale=0.3))
    return RectifiedFlow(network, seed=seed, **arguments)


def points(count=64, seed=0):
    return np.random.default_rng(seed).normal(MEAN, STD, (count, 2)).astype("float32")


def numpy(x):
    return ops.convert_to_numpy(x)


# === The loss ===
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("time_sampling", ["uniform", "low_discrepancy", "logit_normal"])
def test_the_loss_of_a_perfect_velocity_is_that_in_closed_form(training, time_sampling):
    # A test of the convention, too: with time 1 as the data nothing of this holds.
    model = perfect(seed=0, time_sampling=time_sampling)
    losses = numpy(model(points(20000), training=training))
    t = (np.arange(5000) + 0.5) / 5000
    if time_sampling == "logit_normal" and training:
        t = 1 / (1 + np.exp(-np.random.default_rng(0).normal(size=100000)))
    # Var[eps - x0 | x_t] of jointly normal numbers
    expected = np.mean(STD**2 / ((1 - t) ** 2 * STD**2 + t**2))
    assert abs(losses.mean() - expected) < 4 * losses.std() / np.sqrt(len(losses))
    assert losses.std() / np.sqrt(len(losses)) < 0.02 * expected


class Looking(MLPDenoiser):
    """Keeps what it was called with."""

    def call(self, inputs, training=None, **arguments):
        self.seen = inputs
        return 0.0 * inputs["x"]


def looking(**arguments):
    return RectifiedFlow(Looking(2, 4, 1), seed=0, **arguments)


@pytest.mark.parametrize("interpolant", ["linear", "trigonometric", squared])
def test_pairs_are_on_the_path_and_the_error_is_that_to_its_velocity(interpolant, rng):
    model = looking(interpolant=interpolant)
    x0, x1 = (rng.normal(size=(64, 2)).astype("float32") for _ in range(2))
    losses = numpy(model((x0, x1), training=True))
    t = numpy(model.network.seen["t"])
    on_path = model.interpolant(*map(ops.convert_to_tensor, (x0, x1, t)))
    np.testing.assert_allclose(model.network.seen["x"], on_path, atol=1e-6)
    velocity = model.interpolant.velocity(*map(ops.convert_to_tensor, (x0, x1, t)))
    np.testing.assert_allclose(losses, np.mean(numpy(velocity) ** 2, -1), rtol=1e-4)
    assert 0 < t.min() < 0.1 and 0.9 < t.max() < 1


def test_unpaired_rows_are_shuffled_and_none_is_lost(rng):
    x0 = np.zeros((64, 2), "float32")
    x1 = np.linspace(-1, 1, 128).reshape(64, 2).astype("float32")
    model = looking(paired=False, time_sampling="one_step")
    orders = []
    for training in (True, True, False, False):
        model((x0, x1), training=training)
        orders.append(numpy(model.network.seen["x"]))  # x at time 1 is x1
        np.testing.assert_allclose(np.sort(orders[-1], axis=0), x1, atol=1e-6)
    assert np.any(orders[0] != orders[1]) and np.all(orders[2] == orders[3])
    assert np.mean(orders[0] == x1) < 0.2
    model = looking(time_sampling="one_step")
    model({"x": x0, "x1": x1}, training=True)
    np.testing.assert_allclose(model.network.seen["x"], x1)


def test_times_stay_where_velocities_are_finite():
    model = looking(interpolant="stochastic")
    losses = numpy(model(points(5000), training=True))
    t = numpy(model.network.seen["t"])
    assert t.min() >= 0.001 and t.max() <= 0.999 and np.isfinite(losses).all()
    model({"x": points(2), "t": np.float32([0.0, 1.0])})
    np.testing.assert_allclose(model.network.seen["t"], [0.001, 0.999])


def test_labels_are_dropped_and_sent(rng):
    model = small(num_classes=3, cond_dropout=0.5)
    inner, seen = model.network, []

    def look(inputs, training=None):
        seen.append(numpy(inputs["label"]))
        return inner(inputs, training=training)

    model.network = look
    look.num_classes = 3
    look.inputs = inner.inputs
    model({"x": points(), "label": LABELS}, training=False)
    np.testing.assert_array_equal(seen[-1], LABELS)
    model({"x": points(), "label": LABELS}, training=True)
    dropped = seen[-1] == 3
    assert 0.2 < dropped.mean() < 0.8
    np.testing.assert_array_equal(seen[-1][~dropped], LABELS[~dropped])


# === Training ===
@pytest.mark.slow
@pytest.mark.parametrize("how", ["jit", "float16", "pairs", "unpaired", "data set", "labels"])
def test_it_trains(how):
    dtype = "mixed_float16" if how == "float16" else None
    classes = 3 if how == "labels" else None
    interpolant = squared if how == "jit" else "stochastic" if how == "data set" else "linear"
    model = small(
        dtype=dtype, num_classes=classes, paired=how != "unpaired", interpolant=interpolant
    )
    optimizer = keras.optimizers.Adam(0.02)
    optimizer = GuardedLossScale(optimizer) if how == "float16" else optimizer
    model.compile(optimizer, jit_compile=how == "jit")
    x, x1 = points(256), points(256, seed=1)[::-1] - 0.5
    data = (x,)
    if how in ("pairs", "unpaired"):
        data = ((x, x1),)
    if how == "labels":
        data = (x, np.arange(256) % 3)
    if how == "data set":
        tf = pytest.importorskip("tensorflow")
        data = (tf.data.Dataset.from_tensor_slices({"x": x, "x1": x1}).batch(32),)
    before = model.evaluate(*data, verbose=0)
    validation = {} if how == "data set" else {"validation_data": data}
    history = model.fit(*data, epochs=4, verbose=0, shuffle=how != "data set", **validation)
    assert np.isfinite(history.history["loss"]).all()
    after = model.evaluate(*data, verbose=0)
    assert after < 0.9 * before
    assert not validation or abs(history.history["val_loss"][-1] / after - 1) < 1e-4
    noise = points(4) - 0.5
    samples = numpy(model.sample(noise, 5, label=1 if classes else None).x)
    assert np.isfinite(samples).all()


@pytest.mark.slow
def test_two_points_are_carried_to_two_points_and_reflow_straightens():
    # x1 = -1 or 1 to x0 = (x1, 2): independent pairs cross, the flow's do not.
    rng = np.random.default_rng(0)
    sides = rng.choice([-1.0, 1.0], (2, 512, 1))
    x1 = np.concatenate([sides[0], np.zeros((512, 1))], -1) + 0.1 * rng.normal(size=(512, 2))
    x0 = np.concatenate([sides[1], np.ones((512, 1))], -1) + 0.1 * rng.normal(size=(512, 2))
    x0, x1 = x0.astype("float32"), x1.astype("float32")
    first = small(hidden=32, paired=False)
    first.compile(keras.optimizers.Adam(0.02, use_ema=True, ema_momentum=0.9))
    first.fit((x0, x1), epochs=40, batch_size=128, verbose=0)
    pairs = first.reflow(x1, steps=20)
    assert pairs[1] is not x1 and np.array_equal(pairs[1], x1)
    independent = np.mean(np.sum((x1 - x0) ** 2, -1))
    cost = np.mean(np.sum((pairs[1] - pairs[0]) ** 2, -1))
    assert cost < 0.6 * independent  # 1 + 2 of crossing, on the average
    assert np.mean(np.sign(pairs[0][:, 0]) == np.sign(x1[:, 0])) > 0.9
    second = first.copy(paired=True)
    second.compile(keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9))
    second.fit(pairs, epochs=40, batch_size=128, verbose=0)
    assert second.straightness(x1) < 0.5 * first.straightness(x1)
    one_step = first.distill(
        second.reflow(x1, 10), optimizer=keras.optimizers.Adam(0.005), epochs=30, verbose=0
    )
    ends = numpy(one_step.sample(x1, steps=1).x)
    assert np.mean(np.abs(ends - pairs[0])) < 0.15
    assert one_step.time_sampling == "one_step" and first.time_sampling == "uniform"


@pytest.mark.slow
def test_reflow_straightens_fifty_times_and_raises_no_convex_cost():
    first, second = perfect(), small(hidden=64)
    x1, held_out = np.random.default_rng(0).normal(size=(2, 2048, 2)).astype("float32")
    pairs = first.reflow(x1, 40, "heun")
    rate = keras.optimizers.schedules.CosineDecay(0.02, 60 * 16)
    second.compile(keras.optimizers.Adam(rate))
    second.fit(pairs, batch_size=128, epochs=60, verbose=0)
    assert second.straightness(held_out) < first.straightness(held_out) / 50
    independent = np.random.default_rng(1).normal(MEAN, STD, (2048, 2)), held_out
    straightened = [each.reflow(held_out, 40, "heun") for each in (first, second)]
    for power in (1, 2, 4):
        costs = [
            np.mean(np.linalg.norm(x1 - x0, axis=-1) ** power)
            for x0, x1 in (independent, *straightened)
        ]
        assert costs[1] < 0.6 * costs[0] and costs[2] < 1.02 * costs[1]
    one_step = numpy(second.sample(held_out, 1).x)
    assert np.mean(np.abs(one_step - straightened[0][0])) < 0.04  # what many steps were


def test_averages_are_sampled_and_copied():
    model = small()
    model.compile(keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5))

    class Draw(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                both = (self.model.sample(4, 3, seed=0, use_ema=each).x for each in (True, False))
                self.averaged, self.plain = map(numpy, both)
                self.copied = [self.model.copy(use_ema=each) for each in (True, False)]

    draw = Draw()
    model.fit(points(), callbacks=[draw], verbose=0)
    assert np.abs(draw.averaged - draw.plain).max() > 1e-3
    for copy, expected in zip(draw.copied, (draw.averaged, draw.plain), strict=True):
        np.testing.assert_allclose(copy.sample(4, 3, seed=0).x, expected, atol=1e-5)


# === Sampling ===
def test_time_0_is_the_data():
    # A network that says what time it is: the integral from 1 to 0 of t is -1/2, from the noise on.
    inputs = {"x": keras.Input((1,), name="x"), "t": keras.Input((), name="t")}
    network = keras.Model(inputs, 0.0 * inputs["x"] + ops.reshape(inputs["t"], (-1, 1)))
    model = RectifiedFlow(network)
    result = model.sample(np.zeros((3, 1), "float32"), 4, return_trajectory=True)
    # Euler from 1: 1, .75, .5, .25
    np.testing.assert_allclose(
        numpy(result.trajectory)[:, 0, 0], -np.cumsum([0, 1, 0.75, 0.5, 0.25]) / 4
    )
    # x_t = (1 - t) x0 + t x1: at t = 1 all is noise, and the velocity is x1 - x0.
    looked = looking(time_sampling="one_step")
    looked((np.ones((2, 2), "float32"), np.full((2, 2), 5.0, "float32")), training=True)
    np.testing.assert_array_equal(looked.network.seen["x"], np.full((2, 2), 5.0))


def test_samples_of_a_perfect_velocity_are_the_map_and_back():
    model, noise = perfect(), np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    result = model.sample(noise, 40, "heun")
    np.testing.assert_allclose(result.x, MEAN + STD * noise, atol=2e-3)
    back = model.sample(numpy(result.x), 40, "heun", start=0.0, end=1.0)
    np.testing.assert_allclose(back.x, noise, atol=5e-3)
    first, again, other = (numpy(model.sample(5, 4, seed=seed).x) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).min() > 0
    if TENSORFLOW:
        model.compile(run_eagerly=True)
        np.testing.assert_allclose(model.sample(5, 4, seed=0).x, first, atol=1e-5)


def test_guidance_is_the_formula():
    model = small(num_classes=3)
    noise, label = points(6), np.array([0, 1, 2, 0, 1, 2])
    velocity = model.velocity()

    def by_hand(x, t):
        free, told = velocity(x, t, label=np.full(6, 3)), velocity(x, t, label=label)
        return free + 2.5 * (told - free)

    expected = flow_sample(by_hand, noise, 4).x
    found = model.sample(noise, 4, label=label, guidance=2.5).x
    np.testing.assert_allclose(numpy(found), numpy(expected), atol=1e-5)


@pytest.mark.slow
def test_a_seed_gives_the_same_samples_under_xla():
    model = small()
    plain, xla = (numpy(model.sample(5, 5, seed=0, jit_compile=j).x) for j in (False, True))
    np.testing.assert_allclose(plain, xla, atol=1e-5)


def test_half_precision_is_near_float32():
    model, half = small(), small(dtype="mixed_float16")
    for variable, value in zip(half.network.variables, model.network.variables, strict=True):
        variable.assign(value)
    x, y = (m.sample(32, 10, seed=0).x for m in (model, half))
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    assert 0 < np.abs(numpy(x) - numpy(y)).max() < 0.02
    np.testing.assert_allclose(*(numpy(m(points())) for m in (model, half)), rtol=0.1, atol=0.01)


def test_reflow_pairs_stay_paired_and_do_not_depend_on_batches():
    model = small(num_classes=3)
    labels = np.arange(10) % 3
    x0, x1 = model.reflow(10, 3, label=labels, seed=0, batch_size=4)
    assert isinstance(x0, np.ndarray) and x0.shape == x1.shape == (10, 2)
    whole = model.reflow(10, 3, label=labels, seed=0)
    np.testing.assert_array_equal(whole[1], x1)
    np.testing.assert_allclose(whole[0], x0, atol=1e-5)
    np.testing.assert_allclose(model.sample(x1, 3, label=labels).x, x0, atol=1e-5)
    assert np.abs(x0 - x0[::-1]).max() > 0.01


POINTS = np.float32([[1, 0], [0, 1], [-1, -1], [0, 0]])


@keras.saving.register_keras_serializable(package="test_rectified_flow")
class PerfectClasses(keras.Model):
    """The velocity of normal noise to one point for each class, and to (0, 0) for none."""

    num_classes = 3

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = self.add_weight((), "ones")
        self.built = True

    def call(self, inputs):
        points = ops.take(ops.convert_to_tensor(POINTS), inputs["label"], axis=0)
        return self.scale * (inputs["x"] - points) / ops.maximum(inputs["t"], 1e-3)[:, None]


def test_pairs_of_classes_keep_their_labels():
    model, labels = RectifiedFlow(PerfectClasses(), seed=0), np.arange(50) % 3
    noise = np.random.default_rng(0).normal(size=(50, 2)).astype("float32")
    pairs = model.reflow(noise, 5, label=labels, batch_size=16)
    np.testing.assert_allclose(pairs[0], POINTS[labels], atol=1e-5)
    np.testing.assert_array_equal(pairs[1], noise)
    second = model.copy(paired=True)
    assert model.straightness(noise, 20, label=labels) < 1e-8
    assert second.straightness(pairs, 20, label=labels, batch_size=16) < 1e-8
    assert second.straightness(pairs, 20, label=(labels + 1) % 3) > 1
    # In training, too: rows are shuffled whole, and a step of what is right moves nothing.
    for given, right in ((labels, True), ((labels + 1) % 3, False)):
        second.compile(keras.optimizers.SGD(0.1))
        history = second.fit(pairs, given, batch_size=16, epochs=2, verbose=0).history
        assert (max(history["loss"]) < 1e-8) == right
        assert (abs(float(second.network.scale) - 1) < 1e-5) == right


def test_pairs_and_straightness_of_guided_curves():
    # Guided twice as far: the velocity is that to twice the point.
    model, labels = RectifiedFlow(PerfectClasses(), seed=0), np.arange(20) % 3
    noise = np.random.default_rng(0).normal(size=(20, 2)).astype("float32")
    pairs = model.reflow(noise, 5, label=labels, guidance=2.0, batch_size=8)
    np.testing.assert_allclose(pairs[0], 2 * POINTS[labels], atol=1e-5)
    assert model.straightness(pairs, 20, label=labels, guidance=2.0, batch_size=8) < 1e-8
    assert model.straightness(pairs, 20, label=labels) > 1
    assert model.straightness(noise, 20, label=labels, guidance=2.0) < 1e-8
    for refused in (model.reflow, model.straightness):
        with pytest.raises(ValueError, match="Expected a label"):
            refused(noise, 5, guidance=2.0)


def test_straightness_of_a_model():
    model, noise = perfect(), np.random.default_rng(0).normal(size=(500, 2)).astype("float32")
    t = (np.arange(200) + 0.5) / 200
    slope = (t - (1 - t) * STD**2) / np.sqrt((1 - t) ** 2 * STD**2 + t**2)
    expected = np.mean((1 - STD - slope) ** 2) * np.mean(np.sum(noise**2, -1))
    assert abs(model.straightness(noise, 200, batch_size=128) / expected - 1) < 0.03
    pairs = MEAN + STD * noise, noise
    assert 0 < model.straightness(pairs) < model.straightness((pairs[0][::-1], noise))
    with pytest.raises(ValueError, match="one length"):
        model.straightness((noise, noise[:7]))


def test_samplers_and_the_likelihood_of_the_core_serve_the_model():
    model, x = perfect(), points(20)
    exact = -np.sum(0.5 * ((x - MEAN) / STD) ** 2 + 0.5 * np.log(2 * np.pi * STD**2), -1)
    denoiser = model.denoiser()
    nats = compiled(log_likelihood, denoiser, "straight", 20, prediction="velocity")(x).x
    np.testing.assert_allclose(nats, exact, atol=0.01)
    cosine, noise = schedules.get("cosine"), np.random.default_rng(0).normal(size=(50, 2))
    denoiser = model.denoiser("cosine", "v")
    settings = {"prediction": "v", "start": 0.98, "solver": "rk4"}
    found = compiled(ode_sample, denoiser, cosine, 30, **settings)(noise).x
    expected = MEAN + STD * (noise - cosine.alpha_bar(0.98) * MEAN) / np.hypot(
        cosine.alpha_bar(0.98) * STD, cosine.beta_bar(0.98)
    )
    np.testing.assert_allclose(found, expected, atol=5e-3)
    with pytest.raises(ValueError, match="needs the straight path"):
        perfect(interpolant="trigonometric").denoiser()


# === Saving ===
def test_config():
    arguments = {"time_sampling": "logit_normal", "paired": False, "cond_dropout": 0.25, "seed": 3}
    model = small(num_classes=3, interpolant=squared, **arguments)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    for name, value in arguments.items():
        assert getattr(again, name) == value
    assert again.interpolant.function is squared and again.num_classes == 3


@pytest.mark.slow
def test_a_fresh_process_draws_the_same_samples(tmp_path):
    model = small(interpolant="variance_preserving")
    model.compile(keras.optimizers.Adam(0.05, use_ema=True))
    model.fit(points(), verbose=0)
    path = str(tmp_path / "flow.keras")
    model.save(path)
    with child.start() as run:
        again = run("diffusion.test_rectified_flow.draw", path=path)
    np.testing.assert_array_equal(np.float32(again), numpy(model.sample(4, 5, seed=0).x))


def draw(path):
    return numpy(keras.saving.load_model(path).sample(4, 5, seed=0).x).tolist()


# === What is refused ===
class NoStep(keras.callbacks.Callback):
    """Training has not begun when it is told what is wrong."""

    def on_train_begin(self, logs=None):
        raise AssertionError("begun")


def test_bad_data():
    model = small()
    model.compile("adam")
    x = points(8)
    for data, message in (
        (np.zeros((4, 2), "uint8"), "float dtype"),
        (x * np.nan, "=nan"),
        (np.zeros((4, 3), "float32"), r"shape \(b, 2\)"),
        ((x, x[:5]), r"one length.*x0.shape=\(8, 2\), x1.shape=\(5, 2\)"),
        ((x, x * np.inf), "finite data"),
        ((x, 255 * x), "images / 127.5"),
    ):
        for refused in (model.fit, model.evaluate):
            with pytest.raises(ValueError, match=message):
                refused(data, verbose=0)
        with pytest.raises(ValueError, match=message):
            model.fit(x, validation_data=(data,), callbacks=[NoStep()], verbose=0)
    with pytest.raises(ValueError, match="Expected no labels"):
        model.fit(x, validation_data=(x, x), callbacks=[NoStep()], verbose=0)
    assert np.isnan(numpy(model((x, x + 7.0)))).all() and np.isfinite(numpy(model((x, x)))).all()
    with pytest.raises(ValueError, match="Expected no labels"):
        model.fit(x, LABELS[:8], verbose=0)


def test_bad_arguments():
    model = small()
    for arguments, message in (
        ({"steps": 0}, "steps"),
        ({"solver": "newton"}, "solver of euler"),
        ({"n_or_noise": 0}, "n_or_noise"),
        ({"n_or_noise": np.zeros((2, 3), "float32")}, r"shape \(b, 2\)"),
        ({"label": 1}, "Expected no labels"),
        ({"start": 0.0}, "that differ"),
    ):
        with pytest.raises(ValueError, match=message):
            model.sample(**{"n_or_noise": 2, **arguments})
    for arguments, message in (
        ({"time_sampling": "beta"}, "time_sampling of uniform"),
        ({"interpolant": "cubic"}, "a name of linear"),
        ({"interpolant": lambda x0, x1, t: x0 + 1.1 * t * (x1 - x0)}, r"off by 0\.\d+ at t = 1"),
        ({"cond_dropout": 0.1}, "without `num_classes`"),
    ):
        with pytest.raises(ValueError, match=message):
            small(**arguments)
    with pytest.raises(ValueError, match="has its weights"):
        RectifiedFlow(lambda x: x)
    with pytest.raises(ValueError, match="needs the straight path"):
        small(interpolant="trigonometric").distill((points(), points()))
    model.compile("adam", loss="mse")
    with pytest.raises(ValueError, match="without a loss"):
        model.fit(points(), verbose=0)
    model = small()
    model.network.get_layer("Input-Dense").kernel.assign(np.full((2, 8), np.nan))
    with pytest.raises(ValueError, match="first at step 0"):
        model.sample(2, steps=3)


def test_a_model_of_one_step_makes_one():
    model = small(time_sampling="one_step")
    assert model.sample(2, seed=0).calls == 1
    for refused in (
        lambda: model.sample(2, steps=4),
        lambda: model.sample(2, solver="heun"),
        lambda: model.reflow(2),
        lambda: model.straightness(2),
        model.denoiser,
    ):
        with pytest.raises(ValueError, match="distilled to one step"):
            refused()


def test_a_copy_keeps_a_function_that_could_not_be_saved():
    model = small(interpolant=lambda x0, x1, t: x0 + t**2 * (x1 - x0))
    again = model.copy(paired=False)
    assert again.interpolant is model.interpolant and not again.paired
    np.testing.assert_array_equal(
        *(numpy(each.sample(3, steps=2, seed=0).x) for each in (model, again))
    )
