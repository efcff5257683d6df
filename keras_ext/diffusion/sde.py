"""Sampling by the reverse stochastic equation, and all between it and the ordinary one."""

from dataclasses import dataclass

import numpy as np

from keras_ext.diffusion import schedules
from keras_ext.diffusion.checks import checked_noise, known
from keras_ext.diffusion.hops import bayes_hops, jump2
from keras_ext.diffusion.linear_steps import LinearSteps, run
from keras_ext.diffusion.ode_steps import runge_kutta, with_last
from keras_ext.diffusion.sample_result import sampler
from keras_ext.ops.settings import number, whole

METHODS = ("euler_maruyama", "reverse_diffusion", "ancestral")


@dataclass(frozen=True)
class Langevin:
    """Steps along the score at one noise level, which correct a sampler before each of its steps.

        x <- x + delta score + (2 delta)^(1/2) z,  delta = 2 snr^2 c beta^2

    with c the factor of variance alpha_{r|q}^2 of the step for schedules that preserve the variance,
    else 1. The source has the mean square of the scores of a batch in place of 1 / beta^2, which it
    is where noise prevails, and at most elsewhere: samples would depend on each other. (With the
    sample's own score the steps would not end at the marginal but at p / delta, wider than it.)

    Args:
        snr: float > 0, length of the steps against their noise.
        steps: int, number of steps, each a network call.

    Example:

    >>> import keras_ext
    >>> noise = keras.random.normal((4, 2), seed=0)
    >>> corrector = keras_ext.diffusion.Langevin(steps=2)
    >>> arguments = {"corrector": corrector, "denoise": False}
    >>> keras_ext.diffusion.sde_sample(lambda x, t: x, "cosine", noise, 5, **arguments).calls
    15

    Source: Score-Based Generative Modeling through Stochastic Differential Equations, Yang Song et
        al., 2020, https://arxiv.org/abs/2011.13456
    """

    snr: float = 0.16
    steps: int = 1

    def __post_init__(self):
        whole("steps", self.steps)
        if number("snr", self.snr) <= 0:
            raise ValueError(f"Expected snr > 0. Received: snr={self.snr}")

    def table(self, schedule, times):
        """Columns for `moved`, (n, 3) float64."""
        alpha, beta = schedule.levels(times)
        scale = np.ones_like(alpha)
        if schedule.variance_preserving:
            scale = np.maximum((alpha / np.append(alpha[1:], 1.0)) ** 2, 1e-3)
        share = 2.0 * self.snr**2 * scale  # delta / beta^2, and score = (alpha x0 - x) / beta^2
        return np.stack([1.0 - share, share * alpha, beta * np.sqrt(2.0 * share)], axis=-1)

    def moved(self, x, x0, z, row):
        """One step. `x`, `x0`, `z`: (b, ...); `row`: their factors of `table`."""
        return row[0] * x + row[1] * x0 + row[2] * z


@sampler
def sde_sample(
    denoiser,
    schedule,
    noise,
    steps,
    method="ancestral",
    prediction="eps",
    spacing="trailing",
    start=1.0,
    end=1e-3,
    denoise=True,
    noise_level=1.0,
    corrector=None,
    seed=None,
    clip_x0=None,
    conditions=None,
    return_trajectory=False,
):
    """Samples along the family of equations that have the same marginals, time running down:

        dx = [f x - (g^2 + l^2 g^2) / 2 score] dt + l g dw

    with the noise level l: 0 is the ordinary equation, 1 the reverse stochastic one. Methods:

    - "euler_maruyama": x - [...] (r - q) + l g (r - q)^(1/2) z, all at the time r of the step's
      beginning. Wants small steps of time.
    - "reverse_diffusion": as the forward hop from q to r, its factor alpha and variance beta^2 taken
      backwards: (2 - alpha) x + (1 + l^2) / 2 beta^2 score + l beta z.
    - "ancestral": the hop that keeps p(x_q), `ddim` with eta = l. The most precise of large steps.

    A hop from where nothing of the data is left and one to the data are "ancestral". So is one of
    "euler_maruyama" that is longer than 1 / |f|, as at the beginning of "cosine": it would not end
    near the marginal, but beyond its other side.

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`, see `ddim`.
        schedule: a `Schedule` or its name.
        noise: (b, ...) float, x at time `start`.
        steps: int, number of steps.
        method: str.
        prediction: str, what the denoiser predicts.
        spacing: str or list of times, which begin at `start` and end at `end`; see `Schedule.grid`.
        start: float, the first time.
        end: float, the last time, or 0.
        denoise: bool, whether to finish by x0 as predicted at `end`, where that is not 0.
        noise_level: float of at least 0.
        corrector: a `Langevin`, or None.
        seed: int, (2,) integers, or None for a random one.
        clip_x0: pair of floats between which the predicted data are held, or None.
        conditions: dict of further arguments of the denoiser, or None.
        return_trajectory: bool, whether to keep the state at all knots.

    Returns:
        `SampleResult`.

    Raises:
        ValueError: for bad noise, steps, spacing, times or prediction, an unknown method, and a
            denoiser that gives NaN; the error names the step.

    Example:

    >>> import keras_ext
    >>> noise = keras.random.normal((4, 2), seed=0)
    >>> keras_ext.diffusion.sde_sample(lambda x, t: x, "cosine", noise, 5, noise_level=0.5).calls
    6

    Source: Score-Based Generative Modeling through Stochastic Differential Equations, Yang Song et
        al., 2020, https://arxiv.org/abs/2011.13456
    """
    schedule = schedules.get(schedule)
    x = checked_noise(noise)
    known("method", method, METHODS)
    if number("noise_level", noise_level) < 0:
        raise ValueError(f"Expected noise_level of at least 0. Received: noise_level={noise_level}")
    times = schedule.grid(steps, spacing, start, end)
    rows = _rows(schedule, times, method, noise_level)
    return run(
        with_last(rows, times, schedule) if denoise else rows,
        denoiser,
        schedule,
        x,
        prediction,
        seed=seed,
        clip_x0=clip_x0,
        conditions=conditions,
        return_trajectory=return_trajectory,
        corrector=corrector,
    )


def _rows(schedule, times, method, level):
    alpha, beta = schedule.levels(times)
    levels, following = (alpha[:-1], beta[:-1]), (alpha[1:], beta[1:])
    a, b = levels
    exact = bayes_hops(levels, following, level)
    if method == "ancestral":
        return LinearSteps.of_hops(times[:-1], exact)
    if method == "euler_maruyama":
        length = -np.diff(times)
        of_x = 1.0 - schedule.drift(times[:-1]) * length
        variance = schedule.diffusion2(times[:-1]) * length
    else:
        of_x, variance = 2.0 - a / alpha[1:], jump2(levels, following)
    # Where the drift is infinite, or too large for the step, the exact hop takes over.
    outside = (a == 0) | (beta[1:] == 0)
    if method == "euler_maruyama":
        outside |= ~(np.abs(of_x - 1.0) <= 1.0)
    of_x, variance = (np.where(outside, 0.0, part) for part in (of_x, variance))
    # score = (alpha x0 - x) / beta^2
    of_score = 0.5 * (1.0 + level**2) * variance / b**2
    hops = (of_x - of_score, of_score * a, level * np.sqrt(variance))
    hops = [np.where(outside, e, h) for e, h in zip(exact, hops, strict=True)]
    return LinearSteps.of_hops(times[:-1], hops)


@sampler
def edm_stochastic(
    denoiser,
    schedule,
    noise,
    steps,
    prediction="eps",
    spacing="karras",
    churn=40.0,
    churn_range=(0.05, 50.0),
    noise_scale=1.003,
    start=1.0,
    seed=None,
    clip_x0=None,
    conditions=None,
    return_trajectory=False,
):
    """Heun's method, with noise added before each step, from which the step then goes further down.

        sigma^ = (1 + min(churn / steps, 2^(1/2) - 1)) sigma,
        u <- u + noise_scale (sigma^2^ - sigma^2)^(1/2) z,  where sigma is in `churn_range`

    No noise is added where sigma^ would be above that of `start`. The last hop is x0.

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`, see `ddim`.
        schedule: a `Schedule` or its name.
        noise: (b, ...) float, x at time `start`.
        steps: int, number of steps; all but the last take two network calls.
        prediction: str, what the denoiser predicts.
        spacing: str or list of times, see `Schedule.grid`.
        churn: float of at least 0; 0: no noise.
        churn_range: pair of floats, the least and the largest sigma before which noise is added.
        noise_scale: float, makes up for the detail that networks take away.
        start: float, the first time; see `ode_sample`.
        seed: int, (2,) integers, or None for a random one.
        clip_x0: pair of floats between which the predicted data are held, or None.
        conditions: dict of further arguments of the denoiser, or None.
        return_trajectory: bool, whether to keep the states, with the noise that was added.

    Returns:
        `SampleResult`.

    Raises:
        ValueError: for bad noise, steps, spacing, churn or prediction, and a denoiser that gives
            NaN; the error names the step.

    Example:

    >>> import keras_ext
    >>> noise = 80.0 * keras.random.normal((4, 2), seed=0)
    >>> denoiser = lambda x, t: 0.0 * x  # the data are 0
    >>> keras_ext.diffusion.edm_stochastic(denoiser, "edm", noise, 5, prediction="x0").calls
    9

    Source: Elucidating the Design Space of Diffusion-Based Generative Models, Tero Karras et al.,
        2022, https://arxiv.org/abs/2206.00364
    """
    schedule = schedules.get(schedule)
    x = checked_noise(noise)
    if number("churn", churn) < 0:
        raise ValueError(f"Expected churn of at least 0. Received: churn={churn}")
    times = schedule.grid(steps, spacing, start)
    alpha, beta = schedule.levels(times)
    with np.errstate(divide="ignore"):
        sigma = beta / alpha
    higher = sigma * (1.0 + min(churn / steps, np.sqrt(2.0) - 1.0))
    low, high = churn_range
    kept = (sigma < low) | (sigma > high) | (higher > sigma[0]) | (higher == sigma)
    higher = np.where(kept, 0.0, higher)
    from_times = np.where(kept, times, schedule.t_of_sigma(higher))
    from_alpha, from_beta = schedule.levels(from_times)
    # Infinite sigmas, and the data, are kept.
    scale = np.divide(from_alpha, alpha, out=np.ones_like(alpha), where=~kept)
    square = np.where(kept, 0.0, higher**2 - np.where(kept, 0.0, sigma) ** 2)
    added = noise_scale * from_alpha * np.sqrt(square)
    rows = runge_kutta(
        schedule,
        "heun",
        (from_times[:-1], from_alpha[:-1], from_beta[:-1]),
        (times[1:], alpha[1:], beta[1:]),
        np.stack([scale, added], axis=-1)[1:],
    )
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
    )
