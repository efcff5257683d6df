"""How the variance of reverse hops is estimated from data."""

import math
import random

import numpy as np
from keras import ops

from keras_ext.diffusion import schedules
from keras_ext.diffusion.checks import known
from keras_ext.diffusion.linear_steps import call
from keras_ext.diffusion.predictions import to_x0
from keras_ext.diffusion.reverse_variance import ReverseVariance
from keras_ext.diffusion.rising import rising
from keras_ext.diffusion.rows_of_data import rows_of_data
from keras_ext.ops.settings import number, whole

ESTIMATORS = ("auto", "residual", "norm")
SURE = 4.0  # standard errors beyond which a deviation is none of chance
ENOUGH = 16  # samples from which on a regression is one
TINY = 1e-200  # in place of a variance of 0


def estimate_reverse_variance(
    denoiser,
    schedule,
    data,
    prediction="eps",
    estimator="auto",
    times=50,
    samples=320,
    antithetic=True,
    bound=None,
    clip_x0=None,
    last_noise=None,
    conditions=None,
    batch_size=256,
    seed=None,
):
    """Estimates sigma_bar2(t) = E tr Cov[x0 | x_t] / d, which makes the variance of hops optimal.

    The best Gaussian with variance s^2 I for the hop from r to q has
    s^2 = sigma^2 + gamma^2 sigma_bar2(r), see `ddim`. There are two estimators, of all data x0 and
    noises eps, x = alpha x0 + beta eps, eps' predicted, d dimensions:

        residual  beta^2 / alpha^2 E|eps - eps'|^2 / d  =  E|x0 - x0'|^2 / d
        norm      beta^2 / alpha^2 (1 - E|eps'|^2 / d)

    "residual" is right for every denoiser: it is the best variance around that mean. "norm" is
    precise where sigma = beta / alpha is small, and useless where it is large, but supposes that
    eps' = E[eps | x]. For

        norm - residual = 2 beta^2 / alpha^2 E[(eps - eps') . eps'] / d

    which is 0 if the error is orthogonal to the prediction. "auto" looks at these products at all
    times, in units z_t of their standard errors: if sum z_t^2 > n + 4 (2 n)^(1/2) or
    |sum z_t| > 4 n^(1/2) the mean is imperfect. It begins with "residual" and takes off by
    regression, from 16 samples on, what of its noise goes with 1 - |eps|^2 / d, whose mean is 0, and,
    unless the mean is imperfect, with the products, whose mean is then 0 too. "norm" is such a
    combination, with factors that are given and not the best; so are all mixtures of the two.

    E tr Cov[x0 | x_t] is at most tr Cov[x0] (the law of total variance) and grows with sigma. An
    estimate for a mean not found imperfect, and "norm", is replaced by the nearest sequence that
    rises (`rising`, weights 1 / stderr^2), and held below the variance of the data. The residual of
    an imperfect mean need not keep to either, and is left as it is.

    One pass estimates all times: each of the data gets a time of its own. Sums are float64.

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`, see `ddim`. t has different entries.
        schedule: a `Schedule` or its name.
        data: (n, ...) array of floats, at least 2, gone through in random order as often as needed;
            or an iterable of such batches or of pairs (batch, conditions), best in random order.
        prediction: str, what the denoiser predicts: "eps", "x0", "v", "velocity" or "score".
        estimator: str, "auto", "residual" or "norm".
        times: int, number of times, at about equal distances of log sigma; those of a discrete
            schedule are of its steps, each once. Or "all" of the steps of a discrete schedule, or a
            list of times.
        samples: int of at least 2, calls of the denoiser for each time, counted in samples.
        antithetic: bool, whether each of the data is used with eps and -eps; `samples` is even then.
            For as many calls, "auto" is more precise with it (on a mixture in the plane up to three
            times), "residual" alone is not.
        bound: pair of floats a and b between which the data lie, or None: no estimate is above
            ((b - a) / 2)^2.
        clip_x0: pair of floats, as the sampler is given, or None: predicted data are held between.
        last_noise: float or None, see `ReverseVariance`.
        conditions: dict of further arguments of the denoiser, or None. With an array of data,
            entries that are arrays of n go with the data.
        batch_size: int, samples in a call of the denoiser; of iterables, at most their batch.
        seed: int, or None for a random one, which `keras.utils.set_random_seed` determines.

    Returns:
        `ReverseVariance`.

    Raises:
        ValueError: for data that are integers, not finite, or fewer than two, an iterable that ends
            before there were enough and cannot be gone through again, settings out of range, and a
            denoiser that gives NaN; the error names the time.

    Example:

    >>> import keras_ext
    >>> data = np.random.default_rng(0).normal(size=(1000, 8))
    >>> denoiser = lambda x, t: schedules.get("cosine").beta_bar(t)[:, None] * x
    >>> table = keras_ext.diffusion.estimate_reverse_variance(denoiser, "cosine", data, seed=0)
    >>> [round(float(x), 2) for x in table.sigma_bar2([0.01, 1.0])]  # beta^2, as cov[x0 | x] is
    [0.0, 1.0]

    Source: Analytic-DPM: an Analytic Estimate of the Optimal Reverse Variance in Diffusion
        Probabilistic Models, Fan Bao, Chongxuan Li, Jun Zhu, Bo Zhang, 2022,
        https://arxiv.org/abs/2201.06503 (norm); Estimating the Optimal Covariance with Imperfect Mean
        in Diffusion Probabilistic Models, Fan Bao et al., 2022, https://arxiv.org/abs/2206.07309
        (residual)
    """
    schedule = schedules.get(schedule)
    known("estimator", estimator, ESTIMATORS)
    times = _times(schedule, times)
    samples = whole("samples", samples, least=4 if antithetic else 2)
    if antithetic and samples % 2:
        raise ValueError(f"Expected even samples with antithetic noise. Received: {samples=}")
    if last_noise is not None and number("last_noise", last_noise) <= 0:
        raise ValueError(f"Expected last_noise above 0. Received: {last_noise=}")
    if bound is not None and not bound[0] < bound[1]:
        raise ValueError(f"Expected a bound (a, b) with a < b. Received: {bound=}")
    largest = math.inf if bound is None else (0.5 * (bound[1] - bound[0])) ** 2
    rng = np.random.default_rng(random.randrange(2**31) if seed is None else whole("seed", seed, 0))
    twice = 2 if antithetic else 1
    # Each run of as many data as there are times has all of them, in random order.
    places = np.tile(np.arange(len(times)), (samples // twice, 1))
    places = rng.permuted(places, axis=1).ravel()
    levels = np.stack([*schedule.levels(times), *to_x0(schedule, prediction, times)])

    first, second = np.zeros((len(times), 3)), np.zeros((len(times), 3, 3))
    spread, done = 0.0, 0
    rows = rows_of_data(data, conditions, len(places), max(1, batch_size // twice), rng)
    for x0, extra in rows:
        place = places[done : done + len(x0)]
        eps = rng.normal(size=x0.shape)
        terms = [
            _terms(denoiser, times[place], levels[:, place], x0, sign * eps, extra, clip_x0)
            for sign in (1.0, -1.0)[:twice]
        ]
        terms = np.mean(terms, axis=0)
        np.add.at(first, place, terms)
        np.add.at(second, place, terms[:, :, None] * terms[:, None, :])
        spread, done = spread + np.stack([x0.sum(0), np.square(x0).sum(0)]), done + len(x0)
    count = samples // twice
    mean = first / count
    covariance = (second / count - mean[:, :, None] * mean[:, None, :]) * count / (count - 1)
    values, variances, exact = _combined(estimator, mean, covariance, count, levels)
    if exact:
        values = rising(values, 1.0 / np.maximum(variances, TINY))
        largest = min(largest, float(np.mean(spread[1] / done - (spread[0] / done) ** 2)))
    return ReverseVariance(
        times, np.clip(values, 0.0, largest), np.sqrt(variances), samples, schedule, last_noise
    )


def _times(schedule, times):
    if isinstance(times, str):
        if times != "all" or schedule.steps is None:
            raise ValueError(
                'Expected times as a number, a list, or "all" for a discrete schedule. '
                f"Received: times={times!r}, schedule={schedule}"
            )
        return np.arange(1, schedule.steps + 1) / schedule.steps
    if np.ndim(times) > 0:
        times = np.unique(np.asarray(times, "float64"))
        if len(times) < 1 or not (times[0] > 0 and times[-1] <= 1):
            raise ValueError(f"Expected times above 0, at most 1. Received: times={times}")
        return times
    count = whole("times", times, least=2)
    tau = schedule.tau
    count = count if schedule.steps is None else min(count, schedule.steps)
    times = schedule.grid(count - 1, "logsnr", end=tau)[::-1] if count > 1 else np.ones(1)
    return times if schedule.steps is None else np.unique(np.round(times / tau)) / schedule.steps


def _terms(denoiser, times, levels, x0, eps, conditions, clip_x0):
    """|e|^2 / d, e . eps' / d with e = x0 - x0', and 1 - |eps|^2 / d, (b, 3) float64."""
    alpha, beta, p, q = (each.reshape((-1,) + (1,) * (x0.ndim - 1)) for each in levels)
    x = (alpha * x0 + beta * eps).astype("float32")
    tensor, t = ops.convert_to_tensor(x), times.astype("float32")
    value = ops.convert_to_numpy(call(denoiser, tensor, t, conditions))
    bad = ~np.isfinite(value.reshape(len(x), -1)).all(axis=1)
    if bad.any():
        raise ValueError(
            "The denoiser returned NaN or infinity. Expected finite values. "
            f"Received: at time t={times[bad][0]}"
        )
    predicted = p * x + q * value.astype("float64")
    if clip_x0 is not None:
        predicted = np.clip(predicted, *clip_x0)
    error, noise = x0 - predicted, (x - alpha * predicted) / beta
    products = [error**2, error * noise, 1.0 - eps**2]
    return np.stack([each.reshape(len(x), -1).mean(axis=1) for each in products], axis=-1)


def _combined(estimator, mean, covariance, count, levels):
    """Estimates, the variances of their errors, and whether the denoiser is taken as exact."""
    sigma = np.minimum(levels[1] / np.maximum(levels[0], 1e-30), 1e30)
    variance = np.maximum(covariance[:, 1, 1], 0.0) / count
    z = np.where(variance > 0, mean[:, 1] / np.sqrt(np.maximum(variance, TINY)), 0.0)
    limit = len(z) + SURE * np.sqrt(2 * len(z))
    exact = bool(np.sum(z**2) <= limit and abs(np.sum(z)) <= SURE * np.sqrt(len(z)))
    factors = np.zeros_like(mean)
    factors[:, 0] = 1.0
    if estimator == "norm":
        exact, factors = True, np.stack([np.ones_like(sigma), -2.0 * sigma, sigma**2], axis=-1)
    elif estimator == "auto" and count >= ENOUGH:
        for i in range(len(z)):
            used = [1, 2] if exact else [2]
            scale = np.sqrt(np.maximum(np.diag(covariance[i])[used], TINY))
            gram = covariance[i][np.ix_(used, used)] / np.outer(scale, scale)
            along = covariance[i][used, 0] / scale
            factors[i, used] = -np.linalg.lstsq(gram, along, rcond=1e-9)[0] / scale
    values = np.sum(factors * mean, axis=1)
    variances = np.einsum("ni,nij,nj->n", factors, covariance, factors) / count
    return values, np.maximum(variances, 0.0), exact
