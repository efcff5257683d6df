"""The variational bound on the likelihood."""

import math

import numpy as np
from keras import ops

from keras_ext.diffusion import schedules
from keras_ext.diffusion.checks import checked_noise, is_traced
from keras_ext.diffusion.linear_steps import call
from keras_ext.diffusion.noise import seed_pair, standard_normal, uniform
from keras_ext.diffusion.predictions import convert_prediction
from keras_ext.diffusion.sample_result import SampleResult, finite, first_bad, none_bad, sampler
from keras_ext.ops.settings import number, whole


def nll_bound(
    denoiser, schedule, x, steps=100, prediction="eps", width=None, seed=None, conditions=None
):
    """An upper bound on -log p(x) of each sample, in nats, for the model that steps infinitely often.

        -log p(x0) <= alpha_1^2 |x0|^2 / (2 beta_1^2)
                      + 1/2 int |eps - eps'(x_t, t)|^2 d log snr
                      + d/2 log(2 pi sigma_0^2) + |eps - eps'(x_0', 0')|^2 / 2

    with snr = alpha^2 / beta^2: what the last state differs from the noise that samplers begin
    with, what the steps in between cost, and the data given the state at the first time 0' of the
    schedule (1 / steps, or 0.001), as a Gaussian whose standard deviation is sigma_0 = beta / alpha
    there. The expectation over eps and the integral are estimated by one call of the network in each
    of `steps` equal parts of log snr, at a random place, so that the mean is right for any number
    of steps. The bound of a sample has some noise, which a mean over samples averages out.

    **Bits per dimension.** The bound is one of a density. Data of levels that are a width w apart
    (w = 2 / 255 for 8 bits scaled to [-1, 1]) have none, but a probability: with `width=w` the last
    two terms are -log of what the Gaussian N(x_0' / alpha, sigma_0^2) has in the cells of a width w
    around the levels, and the bits of a number of x, of which a sample has d, are at most

        bound / (d log 2)

    A model of a density that was trained on data with uniform noise as wide as a level added takes
    such data here, without `width`: then the bits are (bound / d - log w) / log 2.

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`, see `ddim`.
        schedule: a `Schedule` or its name.
        x: (b, ...) float, the data.
        steps: int, number of parts.
        prediction: str, what the denoiser predicts.
        width: float, how far levels of the data are apart; None: the data have a density.
        seed: int, (2,) integers, or None for a random one.
        conditions: dict of further arguments of the denoiser, or None.

    Returns:
        (b,) float32, nats per sample.

    Raises:
        ValueError: for bad data, steps or prediction, and a denoiser that gives NaN; the error names
            the step.

    Example:

    >>> import keras_ext
    >>> denoiser = lambda x, t: x  # nearly that of standard normal data
    >>> x = keras.random.normal((1000, 2), seed=0)
    >>> bound = keras_ext.diffusion.nll_bound(denoiser, "cosine", x, seed=0)
    >>> bool(np.mean(bound) > np.log(2 * np.pi * np.e))  # the entropy
    True

    Source: Variational Diffusion Models, Diederik P. Kingma et al., 2021,
        https://arxiv.org/abs/2107.00630
    """
    options = {"prediction": prediction, "width": width, "seed": seed, "conditions": conditions}
    return bound_of_each(denoiser, schedule, x, steps, **options).x


@sampler
def bound_of_each(
    denoiser, schedule, noise, steps, prediction="eps", width=None, seed=None, conditions=None
):
    """`nll_bound` in the form of a sampler, for `compiled`: `x` of the result are the bounds."""
    schedule = schedules.get(schedule)
    x0, seed, steps = checked_noise(noise, "data"), seed_pair(seed), whole("steps", steps)
    first = schedule.tau
    last = 1.0 if schedule.alpha_bar(1.0) > 0 else 1.0 - 1e-3
    log_snr = -2.0 * np.log(schedule.sigma(np.array([last, first])))
    part = (log_snr[1] - log_snr[0]) / steps
    axes = tuple(range(1, len(x0.shape)))

    def square(draw, alpha, beta, t):
        """|eps - eps'|^2 of each sample."""
        eps = standard_normal(seed, draw, ops.shape(x0))
        x = alpha * x0 + beta * eps
        value = call(denoiser, x, t, conditions)
        t = ops.broadcast_to(t, ops.shape(x)[:1])
        error = convert_prediction(value, x, t, schedule, prediction, "eps") - eps
        return ops.sum(ops.square(error), axis=axes)

    def add(i, state):
        total, bad = state
        place = ops.cast(i, "float32") + uniform(seed, i + steps + 1, (1,))
        t = schedule.t_of_sigma(ops.exp(-0.5 * (log_snr[0] + part * place)))
        t = ops.clip(t, first, last)
        each = square(i, schedule.alpha_bar(t), schedule.beta_bar(t), t)
        return total + each, first_bad(finite(each), i, bad)

    state = ops.zeros(ops.shape(x0)[:1], "float32"), none_bad()
    if is_traced():
        state = ops.fori_loop(0, steps, add, state)
    else:
        for i in range(steps):
            state = add(i, state)
    total, bad = state
    (alpha, beta), (alpha_1, beta_1) = (
        (float(schedule.alpha_bar(t)), float(schedule.beta_bar(t))) for t in (first, last)
    )
    prior = 0.5 * (alpha_1 / beta_1) ** 2 * ops.sum(ops.square(x0), axis=axes)
    if width is None:
        size = ops.cast(ops.prod(ops.shape(x0)[1:]), "float32")
        decoded = 0.5 * square(steps, alpha, beta, ops.convert_to_tensor(np.float32(first)))
        decoded = decoded + 0.5 * size * math.log(2.0 * math.pi * (beta / alpha) ** 2)
    else:
        eps = standard_normal(seed, steps, ops.shape(x0))
        half = 0.5 * number("width", width) * alpha / beta
        mass = 0.5 * (ops.erf((half - eps) / 2**0.5) + ops.erf((half + eps) / 2**0.5))
        decoded = -ops.sum(ops.log(ops.maximum(mass, 1e-30)), axis=axes)
    return SampleResult(prior + 0.5 * part * total + decoded, None, steps + (width is None)), bad
