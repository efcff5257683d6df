"""A diffusion model as the velocity of the straight path, and back."""

from keras import ops

from keras_ext.diffusion import schedules
from keras_ext.diffusion.linear_steps import call
from keras_ext.diffusion.predictions import aligned, check_prediction, convert_prediction
from keras_ext.diffusion.training_loss import target

NEAR = 1e-5
"""The least time: at 0 the noise cannot be told from data without any."""


def as_velocity(denoiser, schedule, prediction="eps"):
    """Any diffusion model as the velocity of the straight path z_t = (1 - t) x0 + t eps.

        v(z, t) = eps(x, r) - x0(x, r),  x = (alpha_r + beta_r) z,  beta_r / alpha_r = t / (1 - t)

    All paths alpha x0 + beta eps are the same curves in u = x / alpha and sigma = beta / alpha, so
    the flow ends where the model's own equation ends. Where t / (1 - t) is beyond the sigma of the
    schedule at 0 or 1, that time is taken: a schedule that does not end at pure noise has nothing to
    say of it.

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`.
        schedule: a `Schedule` or its name.
        prediction: str, what the denoiser predicts. "eps" and "score" say little of the data where
            sigma is in the thousands, as at time 1 of "cosine", and nothing at that of "straight",
            where the velocity is not finite.

    Returns:
        A function `(z, t, **conditions)` that gives the velocity, (b, ...) float32: what
        `flow_sample` takes.

    Raises:
        ValueError: for an unknown prediction, and "v" of a schedule that does not preserve the
            variance.

    Example:

    >>> import numpy as np
    >>> velocity = as_velocity(lambda x, t: 0.0 * x, "cosine", "x0")  # all of x is noise
    >>> round(float(velocity(np.ones((1, 1), "float32"), np.array([0.5]))[0, 0]), 5)
    2.0

    Source: Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow,
        Xingchao Liu, Chengyue Gong, Qiang Liu, 2022, https://arxiv.org/abs/2209.03003
    """
    schedule = schedules.get(schedule)
    check_prediction(schedule, prediction)
    straight = schedule == schedules.get("straight")
    largest = float(schedule.sigma(1.0))

    def velocity(z, t, **conditions):
        z = ops.cast(z, "float32")
        t = ops.clip(ops.cast(t, "float32"), NEAR, 1.0)
        if not straight:  # where t would not come back from sigma to the last digit
            sigma = ops.minimum(t / ops.maximum(1.0 - t, 1e-7), largest)
            t = ops.clip(schedule.t_of_sigma(sigma), NEAR, 1.0)
        x = aligned(schedule.alpha_bar(t) + schedule.beta_bar(t), z) * z
        value = call(denoiser, x, t, conditions)
        x0, eps = (
            convert_prediction(value, x, t, schedule, prediction, each) for each in ("x0", "eps")
        )
        return eps - x0

    velocity.variables = list(getattr(denoiser, "variables", []))
    return velocity


def as_denoiser(velocity, schedule="straight", prediction="velocity"):
    """A velocity of the straight path as a denoiser, for every sampler and `log_likelihood`.

        z = x / (alpha + beta),  s = beta / (alpha + beta),  v = velocity(z, s)
        x0 = z - s v,  eps = z + (1 - s) v

    For any velocity these say the same as its flow, dx / dt = v. For a flow that was trained with
    noise that is independent of the data they are the means of x0 and eps given x, too, on which
    samplers that add noise rest; after `RectifiedFlow.reflow` they are not.

    Args:
        velocity: function `(z, t, **conditions) -> (b, ...)`, t = 1 noise.
        schedule: a `Schedule` or its name, that of the denoiser.
        prediction: str, what the denoiser is to give: "eps", "x0", "v", "velocity" or "score".

    Returns:
        A function `(x, t, **conditions)` that gives the prediction, (b, ...) float32.

    Raises:
        ValueError: for an unknown prediction, and "v" of a schedule that does not preserve the
            variance.

    Example:

    >>> import numpy as np
    >>> from keras_ext.diffusion import ode_sample
    >>> denoiser = as_denoiser(lambda z, t: 2.0 * z, "vp_continuous", "eps")
    >>> ode_sample(denoiser, "vp_continuous", np.ones((1, 2), "float32"), 5).calls
    11

    Source: Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow,
        Xingchao Liu, Chengyue Gong, Qiang Liu, 2022, https://arxiv.org/abs/2209.03003
    """
    schedule = schedules.get(schedule)
    check_prediction(schedule, prediction)

    def denoiser(x, t, **conditions):
        x, t = ops.cast(x, "float32"), ops.cast(t, "float32")
        alpha, beta = schedule.alpha_bar(t), schedule.beta_bar(t)
        z, s = x / aligned(alpha + beta, x), beta / (alpha + beta)
        v = call(velocity, z, s, conditions)
        x0, eps = z - aligned(s, x) * v, z + aligned(1.0 - s, x) * v
        return target(schedule, prediction, x0, eps, t)

    denoiser.variables = list(getattr(velocity, "variables", []))
    return denoiser
