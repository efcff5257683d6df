"""Guidance by the gradient of a classifier."""

import inspect

import numpy as np
from keras import ops

from keras_ext.diffusion.autodiff import input_gradient
from keras_ext.diffusion.checks import is_traced, known
from keras_ext.diffusion.guidance import (
    Guidance,
    callable_part,
    check_schedule,
    gradient_factor,
    nulled,
)
from keras_ext.diffusion.hops import bayes_hops
from keras_ext.diffusion.predictions import aligned, to_x0


class ClassifierGuidance(Guidance):
    """An unconditional denoiser that leans towards what a classifier of noisy data is told to see.

        score = score(x, t) + scale grad_x log p(y | x, t),
        eps = eps(x, t) - scale beta_t grad_x log p(y | x, t)

    A scale of 1 is the conditional denoiser as far as both are exact, 0 the unconditional one. It
    costs one gradient of the classifier a call.

    `at="mean"`: derived for the hop of DDPM from time r to q, the gradient belongs where that hop
    goes, not where it comes from: the mean of p(x_q | x_r), N(mu, s^2), moves by
    scale s^2 grad log p(y | x, q) at x = mu, the classifier asked about q. A denoiser is told r
    alone, so it is given the `times` of the sampler and has to be used with the hops in question:
    `ddpm` (variance "small") and `ddim` with eta=1 on the same grid. There

        x0 = x0(x, r) + scale beta_q^2 / alpha_q grad log p(y | mu, q)

    so the last hop, to the data, is not guided. At a time that is not on the grid an error is
    raised; within a graph the result is NaN, which ends sampling. `at="x"` holds for every sampler.

    Args:
        denoiser: function `(x, t) -> (b, ...)`, unconditional.
        log_prob: function `(x, t, **conditions) -> (b,)`, the logarithm of the probability of the
            condition, of each sample's own x (b, ...) and t (b,) alone. It computes in tensors of
            the backend. If it is no Keras object, variables in it are not found; see `compiled`.
        scale: float, or (b,) floats, one for each sample.
        schedule: a `Schedule` or its name; not needed for the prediction "score" at x.
        prediction: str, what the denoiser predicts; the guided one predicts the same.
        at: str, "x" or "mean".
        times: the grid of the sampler, `schedule.grid(steps, spacing)`; with `at="mean"`.
        unconditional: None: the denoiser takes no conditions. Or, for one that does, a dict of what
            stands for none, by name, of a shape that broadcasts to that of the condition; it is
            given the others as they are.

    Raises:
        ValueError: for a bad scale, place or prediction, and a missing schedule or grid; when
            called, without a condition that `log_prob` needs.

    Example:

    >>> from keras_ext.diffusion import ClassifierGuidance, ddim, schedules
    >>> cosine = schedules.get("cosine")
    >>> def denoiser(x, t):  # the data are standard normal
    ...     return cosine.beta_bar(t)[:, None] * x
    >>> def log_prob(x, t, y):  # y is the data and noise of variance 1
    ...     a = cosine.alpha_bar(t)[:, None]
    ...     return -0.5 * ops.sum((y - a * x) ** 2 / (2.0 - a**2), axis=-1)
    >>> guided = ClassifierGuidance(denoiser, log_prob, 1.0, cosine)
    >>> noise, y = np.zeros((1, 1)), np.full((1, 1), 3.0, "float32")
    >>> x = ddim(guided, cosine, noise, 100, conditions={"y": y}).x
    >>> bool(abs(float(x[0, 0]) - 1.5) < 0.02)  # N(y / 2, 1 / 2)
    True

    Source: Diffusion Models Beat GANs on Image Synthesis, Prafulla Dhariwal, Alex Nichol, 2021,
        https://arxiv.org/abs/2105.05233; https://kexue.fm/archives/9257 (at the mean)
    """

    def __init__(
        self,
        denoiser,
        log_prob,
        scale,
        schedule=None,
        prediction="eps",
        at="x",
        times=None,
        unconditional=None,
    ):
        super().__init__(denoiser, scale)
        self.log_prob = callable_part("log_prob", log_prob)
        self.schedule, self.prediction = check_schedule(schedule, prediction), prediction
        self.at, self.unconditional = known("at", at, ("x", "mean")), unconditional
        self.hops = None
        if (at == "mean") != (times is not None):
            raise ValueError(
                "The gradient at the mean needs the grid of the sampler, and only it. Expected times "
                f'with at="mean". Received: at={at!r}, times={times}'
            )
        if at == "mean":
            if self.schedule is None:
                raise ValueError('Expected a schedule with at="mean". Received: schedule=None')
            self.hops = _Hops(self.schedule, np.asarray(times, "float64"))

    def __call__(self, x, t, **conditions):
        x, t = ops.convert_to_tensor(x), ops.convert_to_tensor(t)
        _check_conditions(self.log_prob, x, t, conditions)
        known_to_denoiser = {}
        if self.unconditional is not None:
            conditions, known_to_denoiser = nulled(conditions, self.unconditional, x)
        value = self.predict(x, t, known_to_denoiser)

        def gradient(x, t):
            return input_gradient(lambda x: self.log_prob(x, t, **conditions), x)

        if self.at == "x":
            factor = gradient_factor(self.schedule, self.prediction, t)
            return value + aligned(self.scale * factor, x) * gradient(x, t)
        p, q = (aligned(factor, x) for factor in to_x0(self.schedule, self.prediction, t))
        kappa, gamma, spread, next_t = self.hops.at(t)
        mean = aligned(kappa, x) * x + aligned(gamma, x) * (p * x + q * value)
        # What x0 moves by, as a move of the value.
        return value + aligned(self.scale * spread, x) / q * gradient(mean, next_t)


class _Hops:
    """The hops of DDPM from the knots of a grid."""

    def __init__(self, schedule, times):
        if times.ndim != 1 or len(times) < 2 or not np.all(np.diff(times) < 0):
            raise ValueError(f"Expected times that decrease. Received: times={times}")
        alpha, beta = schedule.levels(times)
        kappa, gamma, _ = bayes_hops((alpha[:-1], beta[:-1]), (alpha[1:], beta[1:]), 1.0)
        rows = [kappa, gamma, beta[1:] ** 2 / alpha[1:], times[1:]]
        self.times, self.rows = times[:-1].astype("float32"), np.stack(rows).astype("float32")

    def at(self, t):
        """kappa, gamma, beta_q^2 / alpha_q and q of the hops from times t, (b,) each."""
        distance = ops.abs(t[:, None] - self.times)  # (b, n)
        near = ops.min(distance, axis=-1) < 1e-6
        if not is_traced() and not bool(ops.all(near)):
            raise ValueError(
                "Expected the sampler to call at the times that were given, those of "
                f"schedule.grid(steps, spacing). Received: t={ops.convert_to_numpy(t)}, "
                f"times={self.times}"
            )
        place = ops.argmin(distance, axis=-1)
        kappa, gamma, spread, next_t = (ops.take(row, place) for row in self.rows)
        return kappa, gamma, ops.where(near, spread, float("nan")), next_t


def _check_conditions(log_prob, x, t, conditions):
    """An error where the function cannot be called with these conditions."""
    try:
        signature = inspect.signature(log_prob)
    except (TypeError, ValueError):  # of some compiled functions there is none
        return
    try:
        signature.bind(x, t, **conditions)
    except TypeError as error:
        raise ValueError(
            f"The guidance needs other conditions than those it is given: {error}. Expected those of "
            f"log_prob{signature}. Received: conditions={sorted(conditions)}"
        ) from error
