import keras
import numpy as np
import pytest
from keras import ops
from mixture import Mixture

from keras_ext import models
from keras_ext.diffusion import ReverseCovariance, compiled, ddim, ddpm, schedules

GMM5 = Mixture()
COSINE = schedules.get("cosine")


class Closed:
    """The variance of each element of the mixture's data, in closed form."""

    schedule = COSINE

    def __init__(self):
        self.calls = 0

    def covariance(self, x, t, x0):
        self.calls += 1
        levels = COSINE.alpha_bar(t), COSINE.beta_bar(t)
        np.testing.assert_allclose(x0, GMM5.posterior_mean(x, *levels, xp=ops), atol=0.02)
        return ops.diagonal(GMM5.posterior_covariance(x, *levels, xp=ops), axis1=1, axis2=2)


@keras.saving.register_keras_serializable(package="tests")
class Denoiser(keras.Model):
    """A denoiser of vectors of 2, with weights, a state, and another output in training."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.drop = keras.layers.Dense(2), keras.layers.Dropout(0.9)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x, t, label=None, training=None):
        x = self.drop(self.dense(x), training=training)
        return x if label is None else x + 0.0 * ops.cast(label, "float32")[:, None]


def head(**options):
    return models.MLPDenoiser(2, hidden_dim=32, num_layers=2, **options)


def states(t, count=1500):
    """Noisy data, their posterior means and the diagonals of their covariances."""
    alpha, beta = (np.full(count, f(t)) for f in (COSINE.alpha_bar, COSINE.beta_bar))
    noise = np.random.default_rng(1).normal(size=(count, 2))
    x = alpha[:, None] * GMM5.sample(count, seed=4) + beta[:, None] * noise
    covariance = GMM5.posterior_covariance(x, alpha, beta)
    times = np.full(count, t, "float32")
    x0 = GMM5.posterior_mean(x, alpha, beta).astype("float32")
    return x.astype("float32"), times, x0, np.diagonal(covariance, axis1=1, axis2=2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npr", "sn"])
def test_a_head_learns_the_posterior_variance_of_each_element(kind):
    model = ReverseCovariance(head(), GMM5.denoiser(COSINE), COSINE, kind, seed=0)
    rate = keras.optimizers.schedules.CosineDecay(8e-3, 300)
    model.compile(keras.optimizers.Adam(rate))
    data = GMM5.sample(38400, seed=1).astype("float32")
    history = model.fit(data, batch_size=256, epochs=2, verbose=0).history["loss"]
    assert history[-1] < history[0]
    for t in (0.3, 0.5, 0.7, 1.0):
        x, times, x0, expected = states(t)
        found = ops.convert_to_numpy(model.covariance(x, times, x0))
        assert found.min() >= 0
        # Where states differ much it beats the best constant; later a level is nearly all there is.
        error, constant = np.abs(found - expected).mean(), np.abs(expected - expected.mean()).mean()
        assert error < (0.6 * constant if t <= 0.5 else 0.12 * expected.mean())


def test_hops_take_the_variance_of_each_state(rng):
    noise = rng.normal(size=(5, 2)).astype("float32")
    closed, denoiser = Closed(), GMM5.denoiser(COSINE)
    options = {"variance": closed, "return_trajectory": True, "seed": 3, "spacing": [0.6, 0.3, 0.0]}
    result = ddpm(denoiser, COSINE, noise, 2, **options)
    assert result.calls == 4 and closed.calls == 2  # two networks, two hops
    plain = ddpm(denoiser, COSINE, noise, 2, **{**options, "variance": None})
    # The hop by its formula, with the normal numbers of the one without the variance.
    times = np.array([0.6, 0.3])
    (a, a_q), (b, b_q) = COSINE.alpha_bar(times), COSINE.beta_bar(times)
    s2 = (b_q / b) ** 2 * (b**2 - (a / a_q) ** 2 * b_q**2)
    kappa = np.sqrt(b_q**2 - s2) / b
    gamma = a_q - a * kappa
    levels = np.full(5, a), np.full(5, b)
    mean = kappa * noise + gamma * GMM5.posterior_mean(noise, *levels)
    z = (np.asarray(plain.trajectory[1]) - mean) / np.sqrt(s2)
    covariance = GMM5.posterior_covariance(noise, *levels)
    variance = s2 + gamma**2 * np.diagonal(covariance, axis1=1, axis2=2)
    np.testing.assert_allclose(result.trajectory[1], mean + np.sqrt(variance) * z, atol=1e-4)
    # The last hop drops its noise, and with eta = 0 there is noise of the variance only.
    levels = np.full(5, a_q), np.full(5, b_q)
    last = GMM5.posterior_mean(np.asarray(result.trajectory[1], "float64"), *levels)
    np.testing.assert_allclose(result.x, last, atol=1e-3)
    seeds = [ddim(denoiser, COSINE, noise, 6, variance=closed, seed=seed).x for seed in (1, 2)]
    assert np.abs(seeds[0] - seeds[1]).max() > 0.01


def test_a_sampler_with_a_head_is_the_same_compiled_and_takes_new_weights(rng):
    noise = rng.normal(size=(4, 2)).astype("float32")
    denoiser = GMM5.denoiser(COSINE)
    model = ReverseCovariance(head(), denoiser, "cosine", "sn", clip_x0=(-1.5, 1.5))
    options = {"variance": model, "clip_x0": (-1.5, 1.5)}
    # The head's variables are found beside those that are named.
    sample = compiled(ddpm, denoiser, COSINE, 5, variables=[], **options)
    for _ in range(2):
        eager = ddpm(denoiser, COSINE, noise, 5, seed=1, **options)
        result = sample(noise, seed=1)
        np.testing.assert_allclose(result.x, eager.x, atol=1e-4)
        assert result.calls == eager.calls == 10
        model.head.set_weights([w + 0.1 for w in model.head.get_weights()])
    with pytest.raises(ValueError, match="another schedule"):
        ddpm(denoiser, "linear_ho", noise, 5, variance=model)
    model.head.set_weights([w * np.nan for w in model.head.get_weights()])
    with pytest.raises(ValueError, match="step 0"):
        ddpm(denoiser, COSINE, noise, 5, variance=model)


def test_heads_see_inputs_of_moderate_size_in_float32(rng):
    model = ReverseCovariance(
        head(dtype="mixed_float16"), lambda x, t: x, "edm", prediction="x0", dtype="mixed_float16"
    )
    seen, inner = [], model.head

    def look(inputs, training):
        seen.append((inputs["x"].dtype, float(ops.max(ops.abs(inputs["x"])))))
        return inner(inputs, training=training)

    model.head = look
    loss = ops.convert_to_numpy(model(rng.normal(size=(64, 2)).astype("float32")))
    model.covariance(80.0 * np.ones((2, 2), "float32"), np.ones(2, "float32"), np.ones((2, 2)))
    assert np.isfinite(loss).all() and loss.dtype == "float32"
    assert all("float32" in str(dtype) and largest < 6 for dtype, largest in seen)


def test_only_the_head_learns_and_all_is_saved(tmp_path, rng):
    kind = "sn"
    denoiser = Denoiser()
    denoiser.build((None, 2))
    model = ReverseCovariance(head(num_classes=3), denoiser, "vp_continuous", kind, "v", seed=4)
    frozen, free = denoiser.get_weights(), model.head.get_weights()
    data = {"x": rng.normal(size=(64, 2)).astype("float32"), "label": np.arange(64) % 3}
    assert len(model.trainable_variables) == len(model.head.trainable_variables)
    model.compile(keras.optimizers.SGD(0.1))
    first = model.fit(data, verbose=0).history["loss"][0]
    assert np.isfinite(first) and np.isfinite(model.evaluate(data, verbose=0))
    for before, after in zip(frozen, denoiser.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    moved = [np.any(a != b) for a, b in zip(free, model.head.get_weights(), strict=True)]
    assert sum(moved) >= 2  # the last layer begins as 0, so that the others wait for a step
    assert denoiser.trainable and denoiser.trainable_variables
    path = tmp_path / "variance.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert (loaded.schedule, loaded.kind, loaded.prediction) == (model.schedule, kind, "v")
    for before, after in zip(frozen, loaded.denoiser.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    x, t = data["x"], np.linspace(0.1, 1.0, 64).astype("float32")
    found = loaded.covariance(x, t, 0.5 * x, label=data["label"])
    np.testing.assert_array_equal(found, model.covariance(x, t, 0.5 * x, label=data["label"]))
    result = ddim(
        lambda x, t, label: 0.5 * x,
        "vp_continuous",
        x,
        2,
        variance=loaded,
        conditions={"label": data["label"]},
    )
    assert np.isfinite(np.asarray(result.x)).all()


def test_the_loss_is_that_of_the_formula_with_weights(rng):
    denoiser = Denoiser()
    denoiser.build((None, 2))
    model = ReverseCovariance(head(), denoiser, COSINE, prediction="x0", seed=7)
    x0 = rng.normal(size=(400, 2)).astype("float32")
    model.compile("sgd")
    weights = np.where(np.arange(400) < 200, 2.0, 0.0).astype("float32")
    alone = ReverseCovariance(model.head, denoiser, COSINE, prediction="x0", seed=7)
    each = ops.convert_to_numpy(alone(x0))
    assert each.shape == (400,)
    found = model.evaluate(x0, np.zeros(400), sample_weight=weights, batch_size=400, verbose=0)
    assert found == pytest.approx((weights * each).mean(), rel=1e-4)


def test_what_is_refused():
    with pytest.raises(ValueError, match="npr, sn"):
        ReverseCovariance(head(), Denoiser(), COSINE, kind="full")
    with pytest.raises(ValueError, match="eps, x0"):
        ReverseCovariance(head(), Denoiser(), COSINE, prediction="noise")
    with pytest.raises(ValueError, match="Keras can save"):
        ReverseCovariance(head(), Closed(), COSINE).get_config()
    model = ReverseCovariance(keras.Sequential([keras.Input((2,))]), Denoiser(), COSINE)
    model.head = lambda inputs, training: inputs["x"][:, :1]
    with pytest.raises(ValueError, match="shape of its input"):
        model(np.ones((3, 2), "float32"))
