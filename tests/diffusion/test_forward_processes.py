import keras
import numpy as np
import pytest
from flows_unified import CHAIN, MASK, PLACES, TOKENS, chain_texts, exact_logits
from keras import ops

from keras_ext.diffusion import forward_processes
from keras_ext.diffusion.forward_processes import (
    Fade,
    GaussianBlur,
    GaussianNoise,
    Interpolate,
    Mask,
    Pixelate,
    RandomReplace,
)

PROCESSES = [
    GaussianNoise(),
    GaussianNoise("straight"),
    GaussianBlur(0.25),
    Pixelate(4),
    Mask(),
    Mask(6),
    RandomReplace(5),
    Fade([0.5]),
    Interpolate(),
]
RANDOM = [each for each in PROCESSES if not isinstance(each, GaussianBlur | Pixelate | Fade)]


def numpy(x):
    return ops.convert_to_numpy(x)


def data_of(process, count=6, seed=0):
    rng = np.random.default_rng(seed)
    if process.vocabulary_size:
        return rng.integers(0, 5, (count, 8)).astype("int32")
    return rng.normal(size=(count, 8, 8, 1)).astype("float32")


# === The states ===
@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_time_0_is_the_data_and_time_1_what_sampling_begins_with(process):
    x0 = data_of(process, 500)
    x, _ = process.sample(x0, 0.0, seed=0)
    np.testing.assert_allclose(numpy(x), x0, atol=1e-5)
    last = numpy(process.sample(x0, np.ones(500), seed=0)[0])
    if isinstance(process, GaussianBlur | Pixelate):
        with pytest.raises(ValueError, match="Expected a start"):
            process.prior((3, 8, 8, 1))
        return
    first = numpy(process.prior((500, *x0.shape[1:]), seed=0))
    assert first.dtype == last.dtype and first.shape == last.shape
    if process.vocabulary_size:
        shares = [np.bincount(x.ravel(), minlength=6) / x.size for x in (first, last)]
        assert np.abs(shares[0] - shares[1]).max() < 4 / np.sqrt(4000)
    else:
        bound = 5 / np.sqrt(last.size)
        assert abs(first.mean() - last.mean()) < bound and abs(first.std() - last.std()) < bound


def test_noise_has_the_amplitudes_of_the_schedule():
    process, x0 = GaussianNoise("cosine"), np.full((20000, 1), 3.0, "float32")
    x = numpy(process.sample(x0, 0.7, seed=0)[0])
    alpha, beta = process.schedule.alpha_bar(0.7), process.schedule.beta_bar(0.7)
    assert abs(x.mean() - 3 * alpha) < 4 * beta / np.sqrt(20000)
    assert abs(x.std() - beta) < 4 * beta / np.sqrt(40000)


def test_shares_of_tokens(rng):
    t = np.repeat([0.2, 0.9], 500)
    x0 = np.zeros((1000, 20), "int32")
    masked = numpy(Mask(6).sample(x0, t, seed=0)[0]) == 5
    replaced = numpy(RandomReplace(5).sample(x0, t, seed=0)[0])
    for part, time in ((slice(500), 0.2), (slice(500, None), 0.9)):
        assert abs(masked[part].mean() - time) < 0.02
        shares = np.bincount(replaced[part].ravel(), minlength=5) / 10000
        assert np.abs(shares - [1 - 0.8 * time, *[time / 5] * 4]).max() < 0.02
    pixels = numpy(Mask(value=-2).sample(np.zeros((1000, 4, 4, 3), "float32"), t, seed=0)[0])
    assert np.all((pixels == -2).all(-1) | (pixels == 0).all(-1))  # all channels or none
    assert abs((pixels[500:] == -2).mean() - 0.9) < 0.02


def test_blur_is_a_gaussian_filter_whose_edges_are_mirrors():
    impulse = np.zeros((1, 64), "float32")
    impulse[0, 30] = 1.0
    places = np.arange(64)
    for t in (0.5, 1.0):
        std = 4.0 * t
        kernel = np.exp(-0.5 * ((places - 30) / std) ** 2) / (np.sqrt(2 * np.pi) * std)
        found = numpy(GaussianBlur(4 / 64).sample(impulse, t)[0])
        np.testing.assert_allclose(found[0], kernel, atol=2e-6)
    edge = np.roll(impulse, -30)
    both = np.exp(-0.5 * (places / 4) ** 2) + np.exp(-0.5 * ((places + 1) / 4) ** 2)
    found = numpy(GaussianBlur(4 / 64).sample(edge, 1.0)[0])
    np.testing.assert_allclose(found[0], both / (np.sqrt(2 * np.pi) * 4), atol=2e-6)


def test_blur_of_images(rng):
    x0 = rng.normal(size=(3, 8, 16, 2)).astype("float32")
    t = np.array([0.1, 0.3, 0.8])
    blur = GaussianBlur(0.5)
    x = numpy(blur.sample(x0, t)[0])
    np.testing.assert_allclose(x.mean((1, 2)), x0.mean((1, 2)), atol=1e-6)
    for i, time in enumerate(t):  # in pixels the same along both axes, and one axis after the other
        rows = np.moveaxis(x0[i], 1, 0).reshape(16, 8, 2)
        rows = numpy(GaussianBlur(0.5 * 16 / 8).sample(rows, time)[0])
        columns = np.moveaxis(rows.reshape(16, 8, 2), 0, 1)
        expected = numpy(blur.sample(columns, time)[0])
        np.testing.assert_allclose(x[i], expected, atol=1e-5)
    twice = numpy(blur.sample(numpy(blur.sample(x0, 0.3)[0]), 0.4)[0])
    np.testing.assert_allclose(twice, numpy(blur.sample(x0, 0.5)[0]), atol=1e-5)


def test_pixels(rng):
    x0 = rng.normal(size=(2, 8, 4, 1)).astype("float32")

    def means(size):
        blocks = x0.reshape(2, 8 // size, size, 4 // size, size, 1).mean((2, 4))
        return blocks.repeat(size, 1).repeat(size, 2)

    process = Pixelate(4)
    for t, expected in (
        (0.5, means(2)),
        (1.0, means(4)),
        (0.25, 0.5 * x0 + 0.5 * means(2)),
        (0.9, 0.2 * means(2) + 0.8 * means(4)),
    ):
        np.testing.assert_allclose(numpy(process.sample(x0, t)[0]), expected, atol=1e-6)
    with pytest.raises(ValueError, match="blocks of 8 divide"):
        Pixelate(8).sample(x0, 0.5)


# === The steps ===
@pytest.mark.parametrize("rule", ["resample", "invert", "mix", "increment"])
@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_a_step_with_the_data_themselves_keeps_the_distribution(process, rule):
    x0 = data_of(process, 1)
    x0 = np.repeat(x0, 4000, axis=0) if process in RANDOM else x0
    x, _ = process.sample(x0, 0.75, seed=0)
    if rule not in process.rules:
        with pytest.raises(ValueError, match=f"has the rules {process.rules[0]}"):
            process.step(x0, x, 0.75, 0.5, rule)
        return
    found = numpy(process.step(x0, x, 0.75, 0.5, rule, seed=1, draw=3))
    direct = numpy(process.sample(x0, 0.5, seed=2)[0])
    if process not in RANDOM:
        np.testing.assert_allclose(found, direct, atol=1e-5)
        return
    assert found.dtype == direct.dtype
    values = range(6) if process.vocabulary_size else [None]
    for value in values:
        a, b = ((x == value).mean(0) if value is not None else x.mean(0) for x in (found, direct))
        spread = 0.5 if value is not None else direct.std(0).max()
        assert np.abs(a - b).max() < 5 * spread * np.sqrt(2 / 4000)
    if not process.vocabulary_size:
        np.testing.assert_allclose(found.std(0), direct.std(0), atol=0.15 * direct.std())


def test_how_much_noise_stays():
    x0 = np.zeros((20000, 1), "float32")
    process = GaussianNoise("straight")
    x, eps = process.sample(x0, 0.8, seed=0)
    for rule, rho, correlation in (
        ("invert", None, 1.0),
        ("increment", None, 1.0),
        ("mix", 0.0, 1.0),
        ("mix", 0.6, 0.8),
        ("mix", 1.0, 0.0),
        ("resample", None, 0.0),
    ):
        found = process.step(x0, x, 0.8, 0.4, rule, seed=1, rho=rho)
        np.testing.assert_allclose(
            np.corrcoef(numpy(found)[:, 0], numpy(eps)[:, 0])[0, 1], correlation, atol=0.03
        )


def test_masks_are_revealed_by_chance_and_never_made():
    process, x0 = Mask(6), np.zeros((2000, 10), "int32")
    x = numpy(process.sample(x0, 0.8, seed=0)[0])
    guess = np.ones_like(x0)
    found = numpy(process.step(guess, x, 0.8, 0.6, seed=1))
    assert np.all(found[x == 0] == 0)  # what is visible stays, whatever was guessed
    revealed = found[x == 5] == 1
    assert np.all(revealed | (found[x == 5] == 5))
    assert abs(revealed.mean() - 0.25) < 4 * 0.5 / np.sqrt(revealed.size)
    assert np.all(numpy(process.step(guess, x, 0.8, 0.0, seed=1)) == (x == 5))
    again = numpy(process.step(guess, x, 0.8, 0.6, "resample", seed=1))
    assert abs((again == 5).mean() - 0.6) < 0.02 and np.all(again[x == 0] != 1)
    some = numpy(process.step(guess, x, 0.8, 0.6, "mix", seed=1, rho=0.5))
    hidden = (some == 5)[x == 0].mean()  # of the visible: half are drawn anew
    assert abs(hidden - 0.5 * 0.6) < 0.03


def test_random_tokens_have_the_posterior_of_bayes():
    size, t, q = 3, 0.7, 0.4
    process = RandomReplace(size)
    stays = (1 - t) / (1 - q)
    forward = stays * np.eye(size) + (1 - stays) / size  # p(x_t | x_q), x_q by rows
    for x_t, x0 in ((0, 0), (1, 0)):
        marginal = (1 - q) * np.eye(size)[x0] + q / size
        expected = forward[:, x_t] * marginal
        expected /= expected.sum()
        x = np.full((20000, 2), x_t, "int32")
        found = numpy(process.step(np.full_like(x, x0), x, t, q, seed=0))
        shares = np.bincount(found.ravel(), minlength=size) / found.size
        assert np.abs(shares - expected).max() < 4 * 0.5 / np.sqrt(found.size)


@pytest.mark.parametrize("process", RANDOM, ids=str)
def test_a_sample_does_not_depend_on_its_batch(process):
    x0 = data_of(process)
    x, _ = process.sample(x0, 0.6, seed=0)
    few, _ = process.sample(x0[:2], 0.6, seed=0)
    np.testing.assert_array_equal(numpy(few), numpy(x)[:2])
    for rule in process.rules:
        y, few = (numpy(process.step(x0[:n], numpy(x)[:n], 0.6, 0.3, rule, seed=1)) for n in (6, 2))
        np.testing.assert_array_equal(few, y[:2])


def test_between_two_data_sets(rng):
    process = Interpolate("data")
    x0, x1 = rng.normal(size=(2, 5, 3)).astype("float32")
    x, _ = process.sample(x0, 0.75, noise=x1)
    np.testing.assert_allclose(numpy(x), 0.25 * x0 + 0.75 * x1, atol=1e-6)
    for rule in process.rules:
        found = numpy(process.step(x0, x, 0.75, 0.5, rule))
        np.testing.assert_allclose(found, 0.5 * x0 + 0.5 * x1, atol=1e-6)
    with pytest.raises(ValueError, match="other end of this process"):
        process.sample(x0, 0.75)
    with pytest.raises(ValueError, match="Expected a start"):
        process.prior((2, 3))


# === The loss ===
def test_the_loss_of_masked_text_is_its_entropy():
    x0, count = chain_texts(20000), 20000
    t = 0.001 + 0.999 * (np.arange(count) + 0.5) / count
    x, _ = MASK.sample(x0, t, seed=0)
    logits = exact_logits(x, t)
    t, x0 = ops.convert_to_tensor(t.astype("float32")), ops.convert_to_tensor(x0, "int32")
    losses = numpy(MASK.loss(x0, x, logits, t))
    rows = -np.sum(CHAIN * np.log(CHAIN), axis=1)  # that of each token given the one before
    entropy = np.log(TOKENS) + (PLACES - 1) * rows.mean()
    assert abs(losses.mean() * PLACES - entropy) < 4 * PLACES * losses.std() / np.sqrt(count)
    assert losses.std() / np.sqrt(count) < 0.02


def test_losses_by_hand(rng):
    logits = rng.normal(size=(2, 3, 4)).astype("float32")
    x0 = np.array([[0, 1, 2], [2, 2, 0]], "int32")
    x = np.array([[3, 1, 3], [3, 2, 0]], "int32")
    t = ops.convert_to_tensor(np.float32([0.5, 0.25]))
    chances = np.exp(logits[..., :3]) / np.exp(logits[..., :3]).sum(-1, keepdims=True)
    nats = -np.log(np.take_along_axis(chances, x0[..., None], -1)[..., 0])
    expected = [(nats[0, 0] + nats[0, 2]) / 3 / 0.5, nats[1, 0] / 3 / 0.25]
    arrays = [ops.convert_to_tensor(each) for each in (x0, x, logits)]
    np.testing.assert_allclose(numpy(Mask(4).loss(*arrays, t)), expected, rtol=1e-5)
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    nats = -np.log(np.take_along_axis(chances, x0[..., None], -1)[..., 0])
    found = numpy(RandomReplace(4).loss(*arrays, t))
    np.testing.assert_allclose(found, nats.mean(1), rtol=1e-5)
    x0, guess = rng.normal(size=(2, 2, 3)).astype("float32")
    found = numpy(Fade().loss(ops.convert_to_tensor(x0), None, guess, t))
    np.testing.assert_allclose(found, ((x0 - guess) ** 2).mean(1), rtol=1e-5)


# === Names and what is refused ===
@pytest.mark.parametrize("process", [*PROCESSES, Interpolate("data"), Mask(9, mask_id=2)], ids=str)
def test_config(process):
    again = forward_processes.get(keras.saving.serialize_keras_object(process))
    assert again == process and hash(again) == hash(process) and again is not process
    assert forward_processes.get(process) is process
    assert again != Fade(0.75)


def test_names():
    needed = {"random_replace": {"vocabulary_size": 3}}
    for name, cls in forward_processes.NAMES.items():
        assert type(forward_processes.get(name, **needed.get(name, {}))) is cls
    for process, arguments in (("snow", {}), (None, {}), (Fade(), {"value": 1.0})):
        with pytest.raises(ValueError, match="Expected a ForwardProcess"):
            forward_processes.get(process, **arguments)
    with pytest.raises(ValueError, match="vocabulary_size"):
        forward_processes.get("random_replace")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mask(5, mask_id=5), "mask_id below 5"),
        (lambda: Mask(5, value=0.0), "value has an effect"),
        (lambda: Mask(mask_id=3), "mask_id has an effect"),
        (lambda: Mask(1), "vocabulary_size"),
        (lambda: RandomReplace(1), "vocabulary_size"),
        (lambda: Pixelate(6), "2, 4, 8"),
        (lambda: GaussianBlur(0.0), "largest above 0"),
        (lambda: Fade([[0.0]]), "finite value"),
        (lambda: Interpolate("zero"), "end of noise, data"),
        (lambda: GaussianNoise("linear"), "Expected a Schedule"),
        (lambda: Fade().sample(np.zeros((2, 3), "float32"), 1.5), "between 0, data"),
        (lambda: Fade().sample(np.zeros((2, 3), "int32"), 0.5), "float dtype"),
        (lambda: GaussianBlur().sample(np.zeros((2, 3, 4, 5, 6), "float32"), 0.5), "images"),
        (lambda: Mask(5).sample(np.zeros((2, 3), "float32"), 0.5), "token ids, integers"),
        (lambda: Mask(5).sample(np.array([[0, 5]]), 0.5), r"x0\[\(0, 1\)\]=5"),
        (lambda: Mask(5).sample(np.array([[-1, 4]]), 0.5), r"x0\[\(0, 0\)\]=-1"),
        (lambda: Mask(5).check_data(np.array([[0, 4]]), (2,)), "without 4, which stands"),
        (lambda: Mask(5).check_data(np.array([[0, 3]]), (3,)), r"shape \(b, 3\)"),
        (lambda: Mask(5).check_data(np.zeros((0, 3), int), (3,)), "at least one sample"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_steps_go_back_in_time():
    x = np.zeros((1, 2), "float32")
    for t, q in ((0.5, 0.5), (0.2, 0.4), (1.2, 0.5)):
        with pytest.raises(ValueError, match="Expected"):
            Fade().step(x, x, t, q)
