import keras
import numpy as np
import pytest
from keras import ops
from mixture import MEANS, WEIGHTS, Mixture

from keras_ext.diffusion import (
    ClassifierFreeGuidance,
    ClassifierGuidance,
    SimilarityGuidance,
    compiled,
    convert_prediction,
    ddim,
    ddpm,
    ode_sample,
    schedules,
    sde_sample,
)
from keras_ext.diffusion.predictions import PREDICTIONS
from keras_ext.metrics import sliced_wasserstein, two_sample_floor

VP = schedules.get("vp_continuous")
ALL = Mixture()
# Class 0 has the modes 0 and 1, class 1 the others; 2 stands for no class.
SHARES = np.array([WEIGHTS[:2].sum(), WEIGHTS[2:].sum()])
CLASSES = [
    Mixture(MEANS[:2], WEIGHTS[:2] / SHARES[0]),
    Mixture(MEANS[2:], WEIGHTS[2:] / SHARES[1]),
    ALL,
]
NONE = {"label": 2}


def conditional(x, t, label, schedule=VP, prediction="eps"):
    values = [m.denoiser(schedule, prediction)(x, t) for m in CLASSES]
    return sum(v * ops.cast(label == i, "float32")[:, None] for i, v in enumerate(values))


def log_prob(x, t, label, schedule=VP):
    levels = schedule.alpha_bar(t), schedule.beta_bar(t)
    joint = [
        m.log_density(x, *levels, xp=ops) + float(np.log(share))
        for m, share in zip(CLASSES, SHARES, strict=False)
    ]
    return ops.where(label == 0, *joint) - ALL.log_density(x, *levels, xp=ops)


def noisy(rng, schedule=VP, count=40):
    """Data at times, and their labels."""
    t = np.linspace(0.02, 0.98, count).astype("float32")
    x0, eps = ALL.sample(count, seed=1), rng.normal(size=(count, 2))
    x = schedule.alpha_bar(t)[:, None] * x0 + schedule.beta_bar(t)[:, None] * eps
    label = rng.integers(0, 2, count).astype("int32")
    return tuple(map(ops.convert_to_tensor, (x.astype("float32"), t, label)))


@pytest.mark.parametrize("name", ["vp_continuous", "straight", "ve"])
def test_an_exact_classifier_and_an_exact_conditional_guide_alike(name, rng):
    schedule = schedules.get(name)
    x, t, label = noisy(rng, schedule)
    for scale in (0.0, 0.5, 1.0, 3.0, 8.0):
        # The score itself is as large as 1 / beta.
        for prediction in PREDICTIONS if scale == 3.0 else ["eps"]:
            if prediction == "v" and not schedule.variance_preserving:
                continue

            def both(x, t, label, kind=prediction):
                return conditional(x, t, label, schedule, kind)

            free = ClassifierFreeGuidance(both, scale, NONE)(x, t, label=label)
            by_classifier = ClassifierGuidance(
                ALL.denoiser(schedule, prediction),
                lambda x, t, label: log_prob(x, t, label, schedule),
                scale,
                schedule,
                prediction,
            )(x, t, label=label)
            to_eps = (x, t, schedule, prediction, "eps")
            found, expected = (convert_prediction(v, *to_eps) for v in (by_classifier, free))
            np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, scale))


def test_scale_one_is_the_condition_and_zero_is_none(rng):
    x, t, label = noisy(rng)
    nothing = ops.full_like(label, 2)
    for scale, other in ((0, nothing), (1, label), (np.ones(40), label)):
        found = ClassifierFreeGuidance(conditional, scale, NONE)(x, t, label=label)
        np.testing.assert_allclose(found, conditional(x, t, other), rtol=1e-5, atol=1e-7)
    scales = rng.uniform(0.0, 5.0, 40)
    found = ClassifierFreeGuidance(conditional, scales, NONE)(x, t, label=label)
    for i in (3, 20):
        alone = ClassifierFreeGuidance(conditional, scales[i], NONE)(x, t, label=label)[i]
        np.testing.assert_allclose(found[i], alone, rtol=1e-5)


def test_one_call_of_twice_as_many_rows(rng):
    x, t, label = noisy(rng)
    size, seen = np.arange(40.0, dtype="float32"), []

    def denoiser(x, t, label, size, depth, table):
        seen.append([tuple(v.shape) for v in (x, t, label, size, table)])
        return x * ops.cast(label, "float32")[:, None] + size[:, None] * depth

    guided = ClassifierFreeGuidance(denoiser, 3.0, NONE)
    found = guided(x, t, label=label, size=size, depth=2.0, table=np.ones((7, 3)))
    assert seen == [[(80, 2), (80,), (80,), (80,), (7, 3)]]
    weight = 3.0 * np.asarray(label) - 2.0 * 2.0
    np.testing.assert_allclose(found, x * weight[:, None] + 2.0 * size[:, None], rtol=1e-4)
    # Another denoiser may be called without its condition.
    alone = ClassifierFreeGuidance(lambda x, t, label=None: x if label is None else 2.0 * x, 3.0)
    np.testing.assert_allclose(alone(x, t, label=label), 4.0 * x, rtol=1e-6)


def test_scale_one_samples_the_conditional_within_the_floor(rng):
    real = CLASSES[0].sample(4000, seed=1)
    floor = two_sample_floor(sliced_wasserstein, real)
    noise = rng.normal(size=(2000, 2)).astype("float32")
    label = np.zeros(2000, "int32")
    free = ClassifierFreeGuidance(conditional, 1.0, NONE)
    by_classifier = ClassifierGuidance(ALL.denoiser(VP), log_prob, 1.0, VP)
    for guided in (free, by_classifier):
        x = compiled(ode_sample, guided, VP, 40)(noise, conditions={"label": label}).x
        found = sliced_wasserstein(real[:2000], np.asarray(x))
        assert found < floor.mean + 2 * floor.std
    x = compiled(ode_sample, ALL.denoiser(VP), VP, 40)(noise).x
    assert sliced_wasserstein(real[:2000], np.asarray(x)) > 5 * floor.mean


SAMPLERS = [
    (ddim, {}),
    (ddpm, {}),
    (ode_sample, {}),
    (ode_sample, {"solver": "dpmpp_2m"}),
    (sde_sample, {}),
]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_every_sampler_takes_every_guidance_eagerly_and_compiled(jit_compile, rng):
    noise, label = rng.normal(size=(4, 2)).astype("float32"), np.array([0, 1, 0, 1], "int32")

    def similarity(x, t, target):
        return -ops.sum((x - target) ** 2, axis=-1)

    # Through the denoiser not eps: sigma^2, 23,000 at first, multiplies its roundings.
    plain, of_x0 = ALL.denoiser(VP), ALL.denoiser(VP, "x0")
    guides = [
        (ClassifierFreeGuidance(conditional, 2.0, NONE, (0.1, 9.0), 0.5, None, VP), True),
        (ClassifierGuidance(plain, log_prob, 2.0, VP), True),
        (SimilarityGuidance(of_x0, similarity, np.float32(0.5), 1.0, VP, "x0", True), False),
    ]
    # Each sampler with one guidance, and each guidance compiled.
    for i, (sampler, options) in enumerate(SAMPLERS[:3] if jit_compile else SAMPLERS):
        guided, conditioned = guides[i % 3]
        conditions = {"label": label} if conditioned else {}
        options = options if conditioned else {"prediction": "x0", **options}
        seed = {} if sampler is ode_sample else {"seed": 1}
        eager = sampler(guided, VP, noise, 2, conditions=conditions, **seed, **options).x
        run = compiled(sampler, guided, VP, 2, jit_compile=jit_compile, **options)
        graph = run(noise, conditions=conditions, **seed).x
        np.testing.assert_allclose(graph, eager, atol=1e-3)
        if not jit_compile:  # no sample depends on the others
            part = {name: value[:2] for name, value in conditions.items()}
            alone = sampler(guided, VP, noise[:2], 2, conditions=part, **seed, **options).x
            np.testing.assert_allclose(alone, eager[:2], atol=1e-3)


def test_the_interval_is_one_of_sigma(rng):
    x, t, label = noisy(rng)
    guided = ClassifierFreeGuidance(conditional, 3.0, NONE, interval=(0.5, 2.0), schedule=VP)
    everywhere = ClassifierFreeGuidance(conditional, 3.0, NONE)
    sigma = VP.sigma(np.asarray(t))
    inside = ((sigma >= 0.5) & (sigma <= 2.0))[:, None]
    assert 0 < inside.sum() < 40
    expected = np.where(inside, everywhere(x, t, label=label), conditional(x, t, label))
    np.testing.assert_allclose(guided(x, t, label=label), expected, atol=1e-6)


def test_rescale_brings_the_deviation_back(rng):
    x, t, label = noisy(rng)
    plain, half, full = (
        np.asarray(ClassifierFreeGuidance(conditional, 5.0, NONE, rescale=r)(x, t, label=label))
        for r in (0.0, 0.5, 1.0)
    )
    target = np.asarray(conditional(x, t, label)).std(axis=1)
    np.testing.assert_allclose(full.std(axis=1), target, rtol=1e-4)
    np.testing.assert_allclose(half, 0.5 * (plain + full), atol=1e-5)
    flat = ClassifierFreeGuidance(lambda x, t, label: 0.0 * x, 5.0, NONE, rescale=1.0)
    assert not np.any(flat(x, t, label=label))


def test_the_negative_condition_is_leant_away_from(rng):
    x, t, label = noisy(rng)
    found = ClassifierFreeGuidance(conditional, 3.0, NONE, negative={"label": 1})(x, t, label=label)
    expected = 3.0 * conditional(x, t, label) - 2.0 * conditional(x, t, ops.ones_like(label))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_at_the_mean_the_hop_is_shifted_by_its_variance_times_the_gradient(prediction, rng):
    times, label = VP.grid(6), np.array([0, 1, 0, 1, 1], "int32")
    guided = ClassifierGuidance(
        ALL.denoiser(VP, prediction), log_prob, 2.0, VP, prediction, "mean", times
    )
    alpha, beta = VP.levels(times)
    for i in (2, 4, 5):
        x = alpha[i] * ALL.sample(5, seed=i) + beta[i] * rng.normal(size=(5, 2))
        t = ops.full((5,), times[i], dtype="float32")
        value = guided(ops.convert_to_tensor(x.astype("float32")), t, label=label)
        x0 = np.asarray(convert_prediction(value, x, t, VP, prediction, "x0"))
        # p(x_q | x_r, x0) = N(kappa x_r + gamma x0, variance)
        jump = beta[i] ** 2 - (alpha[i] / alpha[i + 1]) ** 2 * beta[i + 1] ** 2
        kappa = alpha[i] / alpha[i + 1] * beta[i + 1] ** 2 / beta[i] ** 2
        gamma, variance = alpha[i + 1] * jump / beta[i] ** 2, beta[i + 1] ** 2 * jump / beta[i] ** 2
        expected = ALL.posterior_mean(x, np.full(5, alpha[i]), np.full(5, beta[i]))
        mean = kappa * x + gamma * expected
        levels = np.full(5, alpha[i + 1]), np.full(5, beta[i + 1])
        if variance > 0:
            of_class = np.stack([m.score(mean, *levels) for m in CLASSES[:2]])[label, np.arange(5)]
            mean = mean + 2.0 * variance * (of_class - ALL.score(mean, *levels))
        np.testing.assert_allclose(kappa * x + gamma * x0, mean, atol=2e-5)


def test_at_the_mean_needs_the_grid_of_the_sampler(rng):
    noise, conditions = rng.normal(size=(2, 2)).astype("float32"), {"label": np.array([0, 1])}
    plain = ALL.denoiser(VP)
    guided = ClassifierGuidance(plain, log_prob, 1.0, VP, at="mean", times=VP.grid(2))
    eager = ddpm(guided, VP, noise, 2, seed=1, conditions=conditions).x
    graph = compiled(ddpm, guided, VP, 2)(noise, seed=1, conditions=conditions).x
    np.testing.assert_allclose(graph, eager, atol=1e-3)
    with pytest.raises(ValueError, match="times that were given"):
        ddpm(guided, VP, noise, 3, conditions=conditions)
    run = compiled(ddpm, guided, VP, 3)
    with pytest.raises(ValueError, match="NaN"):
        run(noise, conditions=conditions)


@pytest.mark.parametrize("prediction", ["eps", "x0", "velocity", "score"])
def test_similarity_of_gaussian_data(prediction, rng):
    # Data N(m, s^2) and a target that is the data and noise N(0, r^2): a Gaussian again.
    m, s, r, target = 0.7, 0.4, 0.3, ops.convert_to_tensor([1.0, -0.5])
    x, t, _ = noisy(rng)
    gaussian = Mixture([[m, m]], [1.0], s)
    alpha, beta = (np.asarray(f(np.asarray(t)))[:, None] for f in (VP.alpha_bar, VP.beta_bar))
    gain = alpha * s**2 / (alpha**2 * s**2 + beta**2)
    x0, left = m + gain * (x - alpha * m), s**2 * beta**2 / (alpha**2 * s**2 + beta**2)

    def clean(x, t, target):
        assert not np.any(t)
        return -0.5 * ops.sum((x - target) ** 2, axis=-1) / r**2

    def noisy_(x, t, target):  # exact: log p(target | x_t)
        mean = m + ops.convert_to_tensor(gain, "float32") * (x - alpha.astype("float32") * m)
        return -0.5 * ops.sum((target - mean) ** 2 / (r**2 + left.astype("float32")), axis=-1)

    for similarity, through, variance in ((clean, True, r**2), (noisy_, False, r**2 + left)):
        score = gaussian.score(np.asarray(x), alpha[:, 0], beta[:, 0])
        score = score + 1.5 * gain * (np.asarray(target) - np.asarray(x0)) / variance
        guided = SimilarityGuidance(
            gaussian.denoiser(VP, prediction), similarity, target, 1.5, VP, prediction, through
        )
        found = convert_prediction(guided(x, t), x, t, VP, prediction, "eps")
        np.testing.assert_allclose(found, -beta * score, atol=3e-4)  # sigma 130 times a rounding


def test_variables_of_all_parts_are_found_and_read_anew(rng):
    network, classifier = keras.layers.Dense(2), keras.layers.Dense(2)
    network.build((None, 2)), classifier.build((None, 2))

    class Of(keras.layers.Layer):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def call(self, x, t, label=None):
            out = self.inner(x)
            return out if label is None else ops.log_softmax(out)[:, 0]

    guided = ClassifierFreeGuidance(ClassifierGuidance(Of(network), Of(classifier), 2.0, VP), 1.0)
    assert len(guided.variables) == 4
    run = compiled(ddim, guided, VP, 3)
    noise, conditions = rng.normal(size=(3, 2)).astype("float32"), {"label": np.zeros(3, "int32")}
    for layer in (network, classifier):
        layer.kernel.assign(rng.normal(size=(2, 2)))
        eager = ddim(guided, VP, noise, 3, conditions=conditions).x
        found = run(noise, conditions=conditions).x
        np.testing.assert_allclose(found, eager, rtol=1e-4, atol=1e-4)


def test_what_is_refused(rng):
    x, t, label = noisy(rng)
    plain, grid = ALL.denoiser(VP), VP.grid(5)
    for make, words in [
        (lambda: ClassifierFreeGuidance(conditional, 2.0, NONE)(x, t), "needs a condition"),
        (lambda: ClassifierFreeGuidance(conditional, 2.0, NONE)(x, t, label=None), "condition"),
        (lambda: ClassifierFreeGuidance(conditional, 2.0, NONE)(x, t, y=label), "Expected label"),
        (lambda: ClassifierFreeGuidance(None, 2.0), "denoiser"),
        (lambda: ClassifierFreeGuidance(plain, np.nan), "finite"),
        (lambda: ClassifierFreeGuidance(plain, "3"), "scale"),
        (lambda: ClassifierFreeGuidance(plain, np.ones((2, 2))), "scale"),
        (lambda: ClassifierFreeGuidance(plain, 2.0, 10), "dict"),
        (lambda: ClassifierFreeGuidance(plain, 2.0, interval=(0.0, 1.0)), "schedule"),
        (lambda: ClassifierFreeGuidance(plain, 2.0, interval=(2, 1), schedule=VP), "low < high"),
        (lambda: ClassifierFreeGuidance(plain, 2.0, rescale=1.5), "rescale"),
        (
            lambda: ClassifierFreeGuidance(conditional, 2.0, {"label": [1, 2]})(x, t, label=label),
            "broadcast",
        ),
        (lambda: ClassifierGuidance(plain, log_prob, 2.0), "schedule"),
        (lambda: ClassifierGuidance(plain, None, 2.0, VP), "log_prob"),
        (lambda: ClassifierGuidance(plain, log_prob, 2.0, VP)(x, t), "label"),
        (lambda: ClassifierGuidance(plain, log_prob, 2.0, "ve", "v"), '"v" is defined'),
        (lambda: ClassifierGuidance(plain, log_prob, 2.0, VP, at="y"), "x, mean"),
        (lambda: ClassifierGuidance(plain, log_prob, 2.0, VP, at="mean"), "grid"),
        (lambda: ClassifierGuidance(plain, log_prob, 2.0, VP, times=grid), "grid"),
        (
            lambda: ClassifierGuidance(plain, log_prob, 2.0, VP, at="mean", times=grid[::-1]),
            "decrease",
        ),
        (lambda: ClassifierGuidance(plain, lambda x, t: x, 2.0, VP)(x, t), r"shape \(b,\)"),
        (lambda: SimilarityGuidance(plain, None, 0, 1.0, VP), "similarity"),
        (lambda: SimilarityGuidance(plain, log_prob, 0, 1.0, None, "score", True), "schedule"),
    ]:
        with pytest.raises(ValueError, match=words):
            make()
    if keras.config.backend() == "tensorflow":
        with pytest.raises(ValueError, match="No gradient"):
            ClassifierGuidance(plain, lambda x, t: np.asarray(x)[:, 0], 2.0, VP)(x, t)
        numpy = ALL.denoiser(VP, xp=np)
        with pytest.raises(ValueError, match="No gradient"):
            SimilarityGuidance(numpy, lambda x, t, y: x[:, 0], 0, 1.0, VP, "eps", True)(x, t)
