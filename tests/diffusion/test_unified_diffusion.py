import child
import flows_unified
import keras
import numpy as np
import pytest
from flows_unified import MASK, bigram_distance, chain_texts, exact_logits, sampled_texts
from keras import ops
from mixture import Mixture

from keras_ext.diffusion import (
    UnifiedDiffusion,
    compiled,
    ddim,
    forward_processes,
    schedules,
    unified_sample,
)
from keras_ext.diffusion.forward_processes import (
    Fade,
    GaussianBlur,
    GaussianNoise,
    Interpolate,
    Mask,
    Pixelate,
    RandomReplace,
)
from keras_ext.models import MLPDenoiser
from keras_ext.optimizers import GuardedLossScale

TENSORFLOW = keras.backend.backend() == "tensorflow"
TEXTS = Mask(5)


def numpy(x):
    return ops.convert_to_numpy(x)


def text_model(forward=TEXTS, dtype=None, time=False, seed=0, **arguments):
    """A network of the token and its place, with a time if told."""
    keras.utils.set_random_seed(1)
    inputs = {"x": keras.Input((6,), dtype="int32", name="x")}
    y = keras.layers.Embedding(forward.vocabulary_size, 8, dtype=dtype)(inputs["x"])
    y = keras.layers.Reshape((48,), dtype=dtype)(y)
    if time:
        inputs["t"] = keras.Input((), name="t")
        y = keras.layers.Concatenate(dtype=dtype)([y, keras.layers.Reshape((1,))(inputs["t"])])
    y = keras.layers.Dense(32, "relu", dtype=dtype)(y)
    y = keras.layers.Dense(6 * forward.vocabulary_size, dtype=dtype)(y)
    y = keras.layers.Reshape((6, forward.vocabulary_size), dtype=dtype)(y)
    return UnifiedDiffusion(keras.Model(inputs, y), forward, seed=seed, **arguments)


def point_model(forward="gaussian_noise", dtype=None, seed=0, **arguments):
    keras.utils.set_random_seed(1)
    network = MLPDenoiser(2, 8, num_layers=1, dtype=dtype)
    rng = np.random.default_rng(0)
    for weight in network.trainable_variables:  # the last ones begin as 0
        weight.assign(rng.normal(size=weight.shape, scale=0.3))
    return UnifiedDiffusion(network, forward, seed=seed, **arguments)


def points(count=64, seed=0):
    return np.random.default_rng(seed).normal(0.3, 0.5, (count, 2)).astype("float32")


# === With noise it is DDIM ===
@pytest.mark.parametrize("data", ["one mode", "five modes"])
@pytest.mark.parametrize("name", ["cosine", "straight"])
@pytest.mark.parametrize("steps", [1, 20])
def test_with_gaussian_noise_it_is_ddim(data, name, steps):
    schedule = schedules.get(name)
    mixture = Mixture() if data == "five modes" else Mixture([[0.3, -0.2]], [1.0], 0.5)

    def x0(x, t):
        alpha, beta = schedule.alpha_bar(np.array(t)), schedule.beta_bar(np.array(t))
        return mixture.posterior_mean(np.float64(x), alpha, beta).astype("float32")

    noise = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    process = GaussianNoise(name)
    times = np.linspace(1, 0, steps + 1)
    for rule, eta, rho in (
        ("invert", 0.0, None),
        ("increment", 0.0, None),
        ("mix", 0.0, process.rho(times[:-1], times[1:], 0.0)),
        ("mix", 0.5, process.rho(times[:-1], times[1:], 0.5)),
        ("mix", 1.0, None),
    ):
        expected = numpy(ddim(x0, schedule, noise, steps, eta, "x0", seed=3).x)
        found = numpy(unified_sample(x0, process, noise, steps, rule, rho, seed=3).x)
        error = np.abs(found - expected)
        if data == "one mode":
            assert error.max() < 1e-6
        else:  # between two modes a rounding grows tenfold
            assert np.quantile(error, 0.9) < 1e-6 and error.max() < 1e-5


def test_resampling_is_mixing_with_fresh_noise_alone():
    noise = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")

    def x0(x, t):
        return 0.5 * x

    one, other = (
        numpy(unified_sample(x0, GaussianNoise(), noise, 9, rule, rho, seed=0).x)
        for rule, rho in (("resample", None), ("mix", 1.0))
    )
    np.testing.assert_array_equal(one, other)


# === What the rules are good for ===
def test_increments_forgive_what_resampling_piles_up():
    for bias, resampled, incremented in ((0.05, 0.176, 0.019), (0.2, 0.231, 0.068)):
        found = [
            flows_unified.relative_error(bias, rule, 30, 500) for rule in ("resample", "increment")
        ]
        np.testing.assert_allclose(found, [resampled, incremented], rtol=0.12)


def test_more_steps_give_the_pairs_of_masked_text():
    found = [bigram_distance(sampled_texts(1500, steps)) for steps in (1, 2, 4, 8, 24)]
    assert found == sorted(found, reverse=True)
    np.testing.assert_allclose(found, [0.497, 0.232, 0.110, 0.061, 0.024], atol=0.035)


def test_a_perfect_network_reveals_evenly():
    start = MASK.prior((1000, 6))
    states = unified_sample(exact_logits, MASK, start, 6, seed=0, return_trajectory=True).trajectory
    shares = (numpy(states) == 4).mean((1, 2))
    np.testing.assert_allclose(shares, np.arange(6, -1, -1) / 6, atol=4 * 0.5 / np.sqrt(6000))
    masked = numpy(states) == 4
    assert not np.any(masked[1:] & ~masked[:-1])


def test_a_hole_is_filled_and_the_rest_stays():
    texts = chain_texts(4000)
    start = texts.copy()
    start[:, 2:4] = 4
    found = numpy(unified_sample(exact_logits, MASK, start, 8, seed=0).x)
    np.testing.assert_array_equal(np.delete(found, [2, 3], 1), np.delete(texts, [2, 3], 1))
    assert bigram_distance(found) < 0.02


@pytest.mark.slow
def test_random_tokens_give_the_pairs_of_the_text():
    process = RandomReplace(4)
    chain = flows_unified.CHAIN

    def exact(x, t):  # of texts of 2 tokens
        x, t = np.array(x), float(t[0])
        seen = (1 - t) * np.eye(4)[x] + t / 4  # p(x_t | x_0), (b, 2, 4)
        joint = seen[:, 0, :, None] * (chain / 4) * seen[:, 1, None, :]
        return np.log(np.stack([joint.sum(2), joint.sum(1)], axis=1)).astype("float32")

    start = process.prior((4000, 2), seed=1)
    found = [
        bigram_distance(unified_sample(exact, process, start, steps, rule, seed=0).x)
        for steps, rule in ((1, None), (4, None), (30, None), (30, "mix"))
    ]
    assert abs(found[0] - 0.5) < 0.03 and found[1] < 0.3
    assert max(found[2:]) < 0.06


@pytest.mark.parametrize("process", [Pixelate(4), Fade(0.5), GaussianBlur(0.2)], ids=str)
def test_who_knows_the_data_gets_them_back(process, rng):
    x0 = rng.normal(size=(3, 8, 8, 1)).astype("float32")
    x, _ = process.sample(x0, 0.75)
    for rule in process.rules:
        result = unified_sample(lambda x, t: x0, process, x, [0.75, 0.5, 0.1, 0.0], rule)
        np.testing.assert_allclose(numpy(result.x), x0, atol=1e-5)


# === Seeds ===
def restorer_of(process):
    if process.vocabulary_size is None:
        return lambda x, t: 0.5 * x
    weights = np.random.default_rng(0).normal(size=(6, process.vocabulary_size)).astype("float32")
    return lambda x, t: ops.take(ops.convert_to_tensor(weights), x, axis=0)


@pytest.mark.parametrize(
    "process", [GaussianNoise(), Mask(6), RandomReplace(6), GaussianBlur()], ids=str
)
def test_a_seed_gives_the_same_eagerly_in_a_graph_and_under_xla(process):
    restorer = restorer_of(process)
    rule = "mix" if "mix" in process.rules else None
    x0 = np.random.default_rng(0).integers(0, 5, (7, 8))
    x0 = x0.astype("int32" if process.vocabulary_size else "float32")
    start = numpy(process.sample(x0, 1.0, seed=0)[0])
    eager = unified_sample(restorer, process, start, 5, rule, seed=1, return_trajectory=True)
    for jit_compile in (False, True):
        sample = compiled(
            unified_sample,
            restorer,
            process,
            5,
            jit_compile=jit_compile,
            check=process.checked,
            rule=rule,
            return_trajectory=True,
        )
        found = sample(start, seed=1)
        assert found.calls == 5 and found.x.dtype == eager.x.dtype
        for a, b in ((found.x, eager.x), (found.trajectory, eager.trajectory)):
            np.testing.assert_allclose(numpy(a), numpy(b), atol=1e-5)
    few = unified_sample(restorer, process, start[:2], 5, rule, seed=1).x
    np.testing.assert_allclose(numpy(few), numpy(eager.x)[:2], atol=1e-6)
    if "mix" in process.rules:
        other = unified_sample(restorer, process, start, 5, rule, seed=2, return_trajectory=True)
        assert np.any(numpy(other.trajectory) != numpy(eager.trajectory))


@pytest.mark.parametrize("forward", [TEXTS, GaussianNoise()], ids=["tokens", "floats"])
def test_a_model_draws_the_same_compiled_and_eagerly(forward):
    model = text_model() if forward is TEXTS else point_model()
    rule = "mix"
    first, again, other = (numpy(model.sample(5, 4, rule, seed).x) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    assert len(model.kept_samplers.functions) == 1
    if TENSORFLOW:
        model.compile(run_eagerly=True)
        np.testing.assert_allclose(numpy(model.sample(5, 4, rule, 0).x), first, atol=1e-5)


# === The model ===
@pytest.mark.parametrize("steps", [None, 4])
@pytest.mark.parametrize("training", [True, False])
def test_times_of_training(steps, training):
    class Seen(keras.Model):
        def __init__(self):
            super().__init__()
            self.built = True

        def call(self, inputs):
            self.t = inputs["t"]
            return inputs["x"]

    model = UnifiedDiffusion(Seen(), Fade(1.0), steps=steps, seed=0)
    losses = numpy(model(np.zeros((4000, 2), "float32"), training=training))
    t = numpy(model.network.t)
    np.testing.assert_allclose(losses, t**2, rtol=1e-5)
    if steps:
        values, counts = np.unique(t, return_counts=True)
        np.testing.assert_allclose(values, [0.25, 0.5, 0.75, 1.0])
        assert np.abs(counts - 1000).max() < 30
    else:
        gaps = np.diff(np.sort(t))
        assert t.min() > 1e-3 and t.max() < 1 and gaps.max() < 1e-3


def test_validation_does_not_vary_and_training_does():
    model, x = text_model(), chain_texts(64)
    model.compile("adam")
    first, second = (model.evaluate(x, batch_size=32, verbose=0) for _ in range(2))
    assert first == second
    assert np.any(numpy(model(x, training=True)) != numpy(model(x, training=True)))
    found = model.predict(x, batch_size=32, verbose=0)
    assert found.shape == (64,) and np.isclose(found.mean(), first, rtol=1e-5)
    weights = np.where(np.arange(64) < 16, 1.0, 0.0).astype("float32")
    weighed = model.evaluate(x, sample_weight=weights, batch_size=64, verbose=0)
    each = model.predict(x, batch_size=64, verbose=0)
    assert np.isclose(weighed, np.mean(each * weights), rtol=1e-5)


@pytest.mark.slow
def test_text_is_learnt():
    model = text_model()
    adam = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.98)
    model.compile(adam)
    model.fit(chain_texts(4096), batch_size=128, epochs=12, verbose=0)
    found = [bigram_distance(model.sample(1500, steps, seed=0).x) for steps in (1, 24)]
    assert found[0] > 0.4 and found[1] < 0.12
    start = chain_texts(500, seed=1)
    start[:, 3] = 4
    filled = numpy(model.sample(start, 1, seed=0, temperature=1e-3).x)
    sure = start[:, 4] == (start[:, 2] + 2) % 4  # one token is far likelier than the others
    assert np.mean(filled[sure, 3] == (start[sure, 2] + 1) % 4) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("how", ["jit", "float16", "data set", "floats", "eagerly"])
def test_it_trains(how):
    floats, dtype = how == "floats", {"float16": "mixed_float16"}.get(how)
    forward = "gaussian_noise" if floats else RandomReplace(5) if how == "jit" else TEXTS
    model = point_model() if floats else text_model(forward, dtype, time=how == "jit")
    optimizer = keras.optimizers.Adam(0.01)
    optimizer = GuardedLossScale(optimizer) if how == "float16" else optimizer
    model.compile(optimizer, jit_compile=how == "jit", run_eagerly=how == "eagerly" and TENSORFLOW)
    x = points(256) if floats else chain_texts(256).astype("int32")
    before = model.evaluate(x, verbose=0)
    data = x
    if how == "data set":
        tf = pytest.importorskip("tensorflow")
        data = tf.data.Dataset.from_tensor_slices(x).batch(32)
    history = model.fit(data, epochs=4, verbose=0, shuffle=how != "data set")
    assert np.isfinite(history.history["loss"]).all()
    assert model.evaluate(x, verbose=0) < 0.95 * before
    result = model.sample(4, 3, seed=0)
    assert result.x.shape == (4, *x.shape[1:]) and result.calls == 3


@pytest.mark.slow
def test_half_precision_samples_are_near_those_of_float32():
    model, half = point_model(), point_model(dtype="mixed_float16")
    for variable, value in zip(half.network.variables, model.network.variables, strict=True):
        variable.assign(value)
    x, y = (each.sample(32, 8, seed=0).x for each in (model, half))
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    assert 0 < np.abs(numpy(x) - numpy(y)).max() < 0.01 * np.abs(numpy(x)).max()
    np.testing.assert_allclose(*(numpy(each(points())) for each in (model, half)), rtol=0.05)


@pytest.mark.slow
def test_between_two_data_sets():
    model = UnifiedDiffusion(MLPDenoiser(2, 32, num_layers=1), Interpolate("data"), seed=0)
    model.compile(keras.optimizers.Adam(0.01))
    x0, x1 = points(512), points(512, 1) + np.float32([2.0, 0.0])
    model.fit({"x": x0, "noise": x1}, epochs=30, batch_size=64, verbose=0)
    found = numpy(model.sample(x1, 10).x)
    assert np.abs(found.mean(0) - x0.mean(0)).max() < 0.15
    with pytest.raises(ValueError, match="Expected a start"):
        model.sample(4)
    with pytest.raises(ValueError, match="other end of this process"):
        model(x0)


@pytest.mark.slow
def test_a_fresh_process_draws_the_same_samples(tmp_path):
    path = str(tmp_path / "model.keras")
    model = text_model(steps=8, rule="mix")
    model.compile(keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9))
    model.fit(chain_texts(64), verbose=0)
    model.save(path)
    with child.start() as run:
        again = run("diffusion.test_unified_diffusion.draw", path=path)
    np.testing.assert_array_equal(again, draw_from(model))


def draw(path):
    return draw_from(keras.saving.load_model(path))


def draw_from(model):
    return numpy(model.sample(6, 4, seed=0, temperature=0.5).x).tolist()


def test_config():
    model = text_model(Mask(7, mask_id=2), steps=12, rule="resample", seed=3)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert (again.steps, again.rule, again.seed) == (12, "resample", 3)
    assert again.forward == model.forward and again.sample_shape == (6,)
    assert UnifiedDiffusion(model.network, TEXTS).rule == "invert"


@pytest.mark.slow
def test_averages_are_sampled():
    model = point_model()
    model.compile(keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5))
    drawn = {}

    class Draw(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            for use_ema in (True, False):
                drawn[use_ema] = numpy(self.model.sample(4, 3, seed=0, use_ema=use_ema).x)
            drawn["weights"] = [numpy(v) for v in self.model.network.variables]

    model.fit(points(96), verbose=0, callbacks=[Draw()])
    after = numpy(model.sample(4, 3, seed=0, use_ema=False).x)  # Keras has put them in place
    np.testing.assert_allclose(drawn[True], after, atol=1e-5)
    plain = point_model()
    plain.network.set_weights(drawn["weights"])
    np.testing.assert_allclose(drawn[False], numpy(plain.sample(4, 3, seed=0).x), atol=1e-5)
    assert np.abs(drawn[True] - drawn[False]).max() > 1e-3


# === What is refused ===
class NoStep(keras.callbacks.Callback):
    """Training has not begun when it is told what is wrong."""

    def on_train_begin(self, logs=None):
        raise AssertionError("begun")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 6), "float32"), "token ids, integers"),
        (np.full((4, 6), 5), r"x\[\(0, 0\)\]=5"),
        (np.full((4, 6), 4), "stands for a masked token"),
        (np.zeros((4, 5), "int32"), r"shape \(b, 6\)"),
    ],
)
def test_bad_tokens(x, message):
    model = text_model()
    model.compile("adam")
    for refused in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=message):
            refused(x, verbose=0)
    with pytest.raises(ValueError, match=message):
        model.fit(chain_texts(4), validation_data=(x,), callbacks=[NoStep()], verbose=0)


def test_of_what_cannot_be_read_the_loss_is_nan():
    x = chain_texts(3)
    x[1, 2], x[2, 0] = 5, -1
    model = text_model()
    losses = model.predict(x, verbose=0)
    assert np.isnan(losses).tolist() == [False, True, True]
    assert np.isnan(numpy(point_model()(points() + 9.0))).all()
    model.compile("adam")
    if TENSORFLOW:
        tf = pytest.importorskip("tensorflow")
        data = tf.data.Dataset.from_tensors(x)
        assert np.isnan(model.evaluate(data, verbose=0))


def test_bad_arguments():
    model = text_model(steps=8)
    for arguments, message in (
        ({"steps": 0}, "steps"),
        ({"steps": 9}, "8 steps"),
        ({"steps": [1.0, 0.5, 0.5]}, "decrease"),
        ({"rule": "increment"}, "Mask has the rules invert, mix, resample"),
        ({"rule": "mix", "rho": 1.5}, r"rho in \[0, 1\]"),
        ({"rule": "mix", "rho": [0.5, 0.5, 0.5]}, "one or 8"),
        ({"rho": 0.5}, "rho has an effect"),
        ({"temperature": 0.0}, "above 0"),
        ({"n_or_start": 0}, "n_or_start"),
        ({"n_or_start": np.zeros((2, 5), "int32")}, r"shape \(b, 6\)"),
        ({"n_or_start": np.full((2, 6), 9)}, "from 0 to 4"),
        ({"n_or_start": np.zeros((2, 6), "float32")}, "token ids, integers"),
    ):
        with pytest.raises(ValueError, match=message):
            model.sample(**{"n_or_start": 2, **arguments})
    with pytest.raises(ValueError, match="Only tokens"):
        point_model().sample(2, 2, temperature=0.5)
    with pytest.raises(ValueError, match="has its weights"):
        UnifiedDiffusion(lambda x: x, TEXTS)
    with pytest.raises(ValueError, match="GaussianBlur has the rules"):
        point_model("gaussian_blur", rule="mix")
    with pytest.raises(ValueError, match="Expected a dict|Expected data"):
        model({"x": chain_texts(2), "label": np.zeros(2)})
    with pytest.raises(ValueError, match="logits of each token id"):
        UnifiedDiffusion(model.network, Mask(4))(chain_texts(2))
    model.compile("adam", loss="mse")
    with pytest.raises(ValueError, match="without a loss"):
        model.fit(chain_texts(8), verbose=0)
    with pytest.raises(ValueError, match="Expected no targets"):
        model.fit(chain_texts(8), np.zeros(8))


def test_a_restorer_that_gives_nan_names_the_step():
    def floats(x, t):
        return np.where(np.array(t)[:, None] < 0.5, np.nan, np.array(x)).astype("float32")

    with pytest.raises(ValueError, match="first at step 3"):
        unified_sample(floats, GaussianNoise(), np.ones((2, 3), "float32"), 5)

    def tokens(x, t):
        logits = exact_logits(x, t)
        return np.where(np.array(t)[:, None, None] < 0.5, np.nan, logits)

    with pytest.raises(ValueError, match="first at step 3"):
        unified_sample(tokens, MASK, MASK.prior((2, 6)), 5, seed=0)

    def nothing(x, t):
        return np.full((2, 6, 5), -np.inf, "float32")

    with pytest.raises(ValueError, match="first at step 0"):
        unified_sample(nothing, MASK, MASK.prior((2, 6)), 5, seed=0)


@pytest.mark.skipif(not TENSORFLOW, reason="tf.function")
def test_in_a_graph_the_tokens_are_of_no_vocabulary_where_a_restorer_gives_nan():
    import tensorflow as tf

    restorer = restorer_of(forward_processes.get("mask", vocabulary_size=6))

    @tf.function
    def run(scale):
        def scaled(x, t):
            return scale * restorer(x, t)

        return unified_sample(scaled, Mask(6), Mask(6).prior((2, 8)), 3, seed=0).x

    assert np.all(run(tf.constant(1.0)).numpy() < 5)
    assert np.all(run(tf.constant(np.nan, "float32")).numpy() == -1)


def test_what_is_given_stays_or_is_refused():
    start = np.array([[0, 1, 4, 4, 2, 3]], "int32")
    model = text_model()
    for seed in range(3):
        found = numpy(model.sample(start, 3, seed=seed).x)
        assert np.all(found[start != 4] == start[start != 4])
    for rule in ("mix", "resample"):
        with pytest.raises(ValueError, match="Some of the start is not masked"):
            model.sample(start, 3, rule=rule)
        with pytest.raises(ValueError, match="Some of the start is not masked"):
            unified_sample(model.restorer(), TEXTS, start, 3, rule=rule)


def test_floats_that_would_be_taken_for_masked_are_refused():
    model = point_model(Mask(value=0.0))
    model.compile("adam")
    with pytest.raises(ValueError, match="what stands for masked ones"):
        model.fit(np.zeros((4, 2), "float32"), verbose=0)
    assert np.isnan(numpy(model(np.zeros((4, 2), "float32")))).all()


def test_noise_has_the_shape_of_the_data():
    model = point_model(Interpolate("data"))
    with pytest.raises(ValueError, match="noise of the shape of x"):
        model({"x": points(4), "noise": points(4)[:, :1]})
    model.compile("adam")
    fine, short = ({"x": points(4), "noise": points(count)} for count in (4, 3))
    for refused in (
        lambda: model.fit(short, verbose=0),
        lambda: model.fit(fine, validation_data=short, callbacks=[NoStep()], verbose=0),
    ):
        with pytest.raises(ValueError, match=r"\(4, 2\).*shape=\(3, 2\)"):
            refused()
    with pytest.raises(ValueError, match="Expected no targets"):
        model.fit(fine, validation_data=(fine, points(4)), callbacks=[NoStep()], verbose=0)


def test_times_of_a_list_are_those_of_the_model():
    model = point_model(steps=4)
    result = model.sample(2, steps=[1.0, 0.55, 0.0], seed=0)
    exact = model.sample(2, steps=[1.0, 0.5, 0.0], seed=0)
    np.testing.assert_array_equal(numpy(result.x), numpy(exact.x))
    with pytest.raises(ValueError, match="decrease"):
        model.sample(2, steps=[1.0, 0.55, 0.45, 0.0])


def test_a_compiled_restorer_takes_new_weights():
    model = point_model()
    sample = compiled(unified_sample, model.restorer(), model.forward, 2)
    noise = points(3)
    first = numpy(sample(noise, seed=0).x)
    model.network.set_weights([weight + 0.1 for weight in model.network.get_weights()])
    assert np.abs(numpy(sample(noise, seed=0).x) - first).min() > 1e-4
