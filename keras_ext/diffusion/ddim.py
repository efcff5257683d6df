"""DDIM and DDPM: hops whose noise is chosen, the mean follows."""

import numpy as np

from keras_ext.diffusion import schedules
from keras_ext.diffusion.checks import checked_noise
from keras_ext.diffusion.hops import bayes_hops, jump2
from keras_ext.diffusion.linear_steps import LinearSteps, run
from keras_ext.diffusion.sample_result import sampler
from keras_ext.ops.settings import number


@sampler
def ddim(
    denoiser,
    schedule,
    noise,
    steps,
    eta=0.0,
    prediction="eps",
    spacing="trailing",
    variance=None,
    seed=None,
    final_noise=False,
    clip_x0=None,
    conditions=None,
    return_trajectory=False,
):
    """Samples by hops from time r to q that keep the marginals.

        x_q = alpha_q x0 + (beta_q^2 - s^2)^(1/2) eps + s z,  s = eta beta_q / beta_r beta_{r|q}

    eta = 0 is deterministic: Euler's method for du / dsigma = eps, u = x / alpha. eta = 1 is DDPM. A
    `variance` adds what x0 itself is uncertain by:
    s^2 + (alpha_q - alpha_r (beta_q^2 - s^2)^(1/2) / beta_r)^2 sigma_bar2(r).

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`: a Keras model, a closed form; t is (b,)
            float32. Eagerly also one that computes in NumPy.
        schedule: a `Schedule` or its name.
        noise: (b, ...) float, x at the first time, usually beta_1 times standard normal numbers.
        steps: int, number of hops and of calls of the denoiser.
        eta: float, at least 0.
        prediction: str, what the denoiser predicts: "eps", "x0", "v", "velocity" or "score".
        spacing: str or list of times, see `Schedule.grid`.
        variance: None, or an object whose `sigma_bar2(times)` is the average variance of the data
            given the noisy data, tr Cov[x0 | x_t] / d, such as `ReverseVariance`; or one whose
            `covariance(x, t, x0, **conditions)`, (b, ...), is that of each element in each state,
            such as `ReverseCovariance`. The latter is called at each hop, and these calls count too.
        seed: int, (2,) integers, or None for a random one. The noise of a sample at a step is a
            function of seed, step and the sample's place in the batch alone.
        final_noise: bool, whether the last hop, to the data, adds its noise.
        clip_x0: pair of floats between which the predicted data are held, or None. The noise is
            computed from the clipped data.
        conditions: dict of further arguments of the denoiser, or None.
        return_trajectory: bool, whether to keep the state at all knots.

    Returns:
        `SampleResult`: `x` (b, ...) float32, `trajectory` (steps + 1, b, ...) or None, `calls`.

    Raises:
        ValueError: for bad noise, steps, spacing or prediction, a variance that was made for another
            schedule, and a denoiser that gives NaN; the error names the step.

    Example:

    >>> import keras_ext
    >>> noise = keras.random.normal((4, 2), seed=0)
    >>> denoiser = lambda x, t: x  # the data are standard normal: eps = beta x, nearly x at first
    >>> keras_ext.diffusion.ddim(denoiser, "cosine", noise, steps=10).calls
    10

    Source: Denoising Diffusion Implicit Models, Jiaming Song, Chenlin Meng, Stefano Ermon, 2020,
        https://arxiv.org/abs/2010.02502
    """
    schedule = schedules.get(schedule)
    x = checked_noise(noise)
    if number("eta", eta) < 0:
        raise ValueError(f"Expected eta of at least 0. Received: eta={eta}")
    times = schedule.grid(steps, spacing)
    rows = hop_rows(schedule, times, eta, variance, final_noise)
    covariance = getattr(variance, "covariance", None)
    return run(
        rows,
        denoiser,
        schedule,
        x,
        prediction,
        seed=seed,
        clip_x0=clip_x0,
        conditions=conditions,
        return_trajectory=return_trajectory,
        covariance=covariance,
    )


@sampler
def ddpm(
    denoiser,
    schedule,
    noise,
    steps,
    eta=1.0,
    prediction="eps",
    spacing="trailing",
    variance=None,
    seed=None,
    final_noise=False,
    clip_x0=None,
    conditions=None,
    return_trajectory=False,
):
    """`ddim` with eta = 1: the hops of the posterior p(x_q | x_r, x0).

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`, see `ddim`.
        schedule: a `Schedule` or its name.
        noise: (b, ...) float, x at the first time.
        steps: int, number of hops and of network calls.
        eta: float, see `ddim`.
        prediction: str, what the denoiser predicts.
        spacing: str or list of times, see `Schedule.grid`.
        variance: None or "small": that of the posterior, right for data that are one point; "big":
            beta_{r|q}^2, right for data that are standard normal, the mean unchanged; or an object
            with `sigma_bar2(times)` or `covariance(x, t, x0, **conditions)`, see `ddim`.
        seed: int, (2,) integers, or None for a random one.
        final_noise: bool, whether the last hop, to the data, adds its noise.
        clip_x0: pair of floats between which the predicted data are held, or None.
        conditions: dict of further arguments of the denoiser, or None.
        return_trajectory: bool, whether to keep the state at all knots.

    Returns:
        `SampleResult`.

    Raises:
        ValueError: see `ddim`.

    Example:

    >>> import keras_ext
    >>> noise = keras.random.normal((4, 2), seed=0)
    >>> result = keras_ext.diffusion.ddpm(lambda x, t: x, "cosine", noise, steps=10, seed=1)
    >>> tuple(result.x.shape)
    (4, 2)

    Source: Denoising Diffusion Probabilistic Models, Jonathan Ho, Ajay Jain, Pieter Abbeel, 2020,
        https://arxiv.org/abs/2006.11239
    """
    return ddim.__wrapped__(
        denoiser,
        schedule,
        noise,
        steps,
        eta,
        prediction,
        spacing,
        variance,
        seed,
        final_noise,
        clip_x0,
        conditions,
        return_trajectory,
    )


def hop_rows(schedule, times, eta, variance=None, final_noise=False):
    """The hops between the knots of a grid, as a table.

    Args:
        schedule: a `Schedule`.
        times: (steps + 1,) float64, the knots.
        eta: float.
        variance: None, "small", "big" or an object with `covariance` or `sigma_bar2`. If the latter
            has a `last_noise` that is not None, E|s z| of the last hop that adds noise is held
            below it.
        final_noise: bool, whether the hop to the data adds noise.

    Returns:
        `LinearSteps`.

    Raises:
        ValueError: for an unknown variance or one of another schedule.

    Example:

    >>> schedule = schedules.get("straight")
    >>> hop_rows(schedule, schedule.grid(2), 0.0).mix[:, 0].tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    alpha, beta = schedule.levels(times)
    levels, following = (alpha[:-1], beta[:-1]), (alpha[1:], beta[1:])
    kappa, gamma, s = bayes_hops(levels, following, eta)
    spread, limit = None, None
    if isinstance(variance, str) and variance == "big":
        if eta != 1.0:
            raise ValueError(
                'The variance "big" goes with the mean of eta = 1. Expected eta=1. '
                f"Received: eta={eta}"
            )
        s = np.sqrt(jump2(levels, following))
    elif hasattr(variance, "covariance"):
        schedules.check_made_for(variance, schedule)
        spread = gamma
    elif variance is not None and variance != "small":
        s = np.sqrt(s**2 + gamma**2 * _sigma_bar2(variance, schedule, times[:-1]))
        limit = getattr(variance, "last_noise", None)
    if not final_noise:
        s = np.where(times[1:] == 0, 0.0, s)
        spread = None if spread is None else np.where(times[1:] == 0, 0.0, spread)
    if limit is not None and np.any(s > 0):
        last = np.nonzero(s)[0][-1]
        s[last] = min(s[last], limit * np.sqrt(0.5 * np.pi))  # E|z| = (2 / pi)^(1/2)
    return LinearSteps.of_hops(times[:-1], (kappa, gamma, s), spread)


def _sigma_bar2(variance, schedule, times):
    if not hasattr(variance, "sigma_bar2"):
        raise ValueError(
            'Expected a variance of None, "small", "big", or an object with the method '
            f"sigma_bar2(times) or covariance(x, t, x0). Received: variance={variance!r}"
        )
    schedules.check_made_for(variance, schedule)
    values = np.asarray(variance.sigma_bar2(times), "float64")
    if values.shape != times.shape or not np.all(values >= 0):
        raise ValueError(
            f"Expected sigma_bar2 to give {len(times)} values of at least 0. Received: {values}"
        )
    return values
