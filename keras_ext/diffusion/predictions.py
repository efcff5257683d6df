"""What a network predicts, and how each follows from each."""

import numpy as np
from keras import ops

from keras_ext.diffusion.checks import known

PREDICTIONS = ("eps", "x0", "v", "velocity", "score")


def to_x0(schedule, prediction, times):
    """The factors p and q of x0 = p x + q value, for a prediction at times.

        eps       x / alpha - sigma value
        x0        value
        v         alpha x - beta value
        velocity  (beta' x - beta value) / (alpha beta' - beta alpha')
        score     x / alpha + beta sigma value

    Args:
        schedule: a `Schedule`.
        prediction: str.
        times: (n,), a NumPy array or a tensor.

    Returns:
        p and q, (n,) each.

    Raises:
        ValueError: for an unknown prediction, "v" of a schedule that does not preserve the variance,
            and "eps" or "score" where nothing of the data is left.

    Example:

    >>> from keras_ext.diffusion import schedules
    >>> [float(factor) for factor in to_x0(schedules.get("straight"), "velocity", 0.25)]
    [1.0, -0.25]
    """
    check_prediction(schedule, prediction, times)
    alpha, beta = schedule.alpha_bar(times), schedule.beta_bar(times)
    if prediction == "x0":
        return 0.0 * alpha, 0.0 * alpha + 1.0
    if prediction == "v":
        return alpha, -beta
    if prediction == "velocity":
        alpha_slope, beta_slope = schedule.slopes(times)
        determinant = alpha * beta_slope - beta * alpha_slope
        return beta_slope / determinant, -beta / determinant
    if prediction == "eps":
        return 1.0 / alpha, -beta / alpha
    return 1.0 / alpha, beta * beta / alpha


def check_prediction(schedule, prediction, times=None):
    """Refuses a prediction that a schedule leaves undefined.

    Args:
        schedule: a `Schedule`.
        prediction: str.
        times: NumPy array of the times at which the data are computed from it. A tensor is not
            looked at.

    Raises:
        ValueError: see `to_x0`.

    Example:

    >>> from keras_ext.diffusion import schedules
    >>> check_prediction(schedules.get("cosine"), "v")
    """
    known("prediction", prediction, PREDICTIONS)
    if prediction == "v" and not schedule.variance_preserving:
        raise ValueError(
            'The prediction "v" is defined for alpha^2 + beta^2 = 1 only. Expected "velocity", '
            f'"x0", "eps" or "score". Received: prediction="v", schedule={schedule}'
        )
    if prediction in ("eps", "score") and times is not None and not ops.is_tensor(times):
        if np.any(schedule.alpha_bar(times) == 0):
            raise ValueError(
                f'The prediction "{prediction}" says nothing of the data where none of it is left, '
                'alpha = 0. Expected "x0", "velocity" or "v", or times below '
                f"{np.max(times)}. Received: prediction={prediction!r}, schedule={schedule}"
            )


def convert_prediction(value, x, t, schedule, source, target):
    """What one prediction says, as another.

        x = alpha x0 + beta eps,  v = alpha eps - beta x0,
        velocity = alpha' x0 + beta' eps,  score = -eps / beta

    Args:
        value: (b, ...) float tensor, the prediction.
        x: (b, ...) float tensor, the noisy data.
        t: (b,), float times; a NumPy array, or a tensor.
        schedule: a `Schedule`.
        source: str, what `value` is: "eps", "x0", "v", "velocity" or "score".
        target: str, what is wanted of it.

    Returns:
        (b, ...) float32.

    Raises:
        ValueError: for an unknown prediction, "v" of a schedule that does not preserve the variance,
            and what is undefined where nothing of the data is left. At times in a tensor the
            last is not noticed; the result is infinite or NaN.

    Example:

    >>> from keras_ext.diffusion import schedules
    >>> x, eps, t = np.ones((1, 2), "float32"), np.full((1, 2), 2.0, "float32"), np.array([0.5])
    >>> straight = schedules.get("straight")
    >>> x0 = convert_prediction(eps, x, t, straight, "eps", "x0")
    >>> velocity = convert_prediction(x0, x, t, straight, "x0", "velocity")
    >>> float(velocity[0, 0])
    2.0

    Source: Progressive Distillation for Fast Sampling of Diffusion Models, Tim Salimans, Jonathan
        Ho, 2022, https://arxiv.org/abs/2202.00512 (v)
    """
    known("source", source, PREDICTIONS)
    known("target", target, PREDICTIONS)
    for prediction in (source, target):
        check_prediction(schedule, prediction)
    value, x = ops.cast(value, "float32"), ops.cast(x, "float32")
    if source == target:
        return value
    if {source, target} == {"eps", "score"}:
        beta = aligned(schedule.beta_bar(t), x)
        return -value / beta if target == "score" else -value * beta
    p, q = to_x0(schedule, source, t)
    alpha, beta = schedule.alpha_bar(t), schedule.beta_bar(t)
    # Both are linear in x and the value, with factors of which none is a difference of large ones.
    if target == "x0":
        a, b = p, q
    elif target == "eps":
        a, b = _eps_factors(source, alpha, beta, p, q, schedule, t)
    elif target == "score":
        a, b = _eps_factors(source, alpha, beta, p, q, schedule, t)
        a, b = -a / beta, -b / beta
    else:
        c, d = _eps_factors(source, alpha, beta, p, q, schedule, t)
        of_x0, of_eps = (-beta, alpha) if target == "v" else schedule.slopes(t)
        a, b = of_x0 * p + of_eps * c, of_x0 * q + of_eps * d
    return aligned(a, x) * x + aligned(b, x) * value


def _eps_factors(source, alpha, beta, p, q, schedule, t):
    """The factors of eps = a x + b value."""
    if source == "eps":
        return 0.0 * alpha, 0.0 * alpha + 1.0
    if source == "v":
        return beta, alpha
    if source == "velocity":
        alpha_slope, beta_slope = schedule.slopes(t)
        determinant = alpha * beta_slope - beta * alpha_slope
        return -alpha_slope / determinant, alpha / determinant
    if source == "score":
        return 0.0 * beta, -beta
    return 1.0 / beta, -alpha / beta


def as_eps(denoiser, schedule, prediction):
    """A denoiser of whatever prediction, as one that predicts the noise.

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`.
        schedule: a `Schedule`, or its name.
        prediction: str, what it predicts.

    Returns:
        A function `(x, t, **conditions)` that gives eps, (b, ...) float32.

    Raises:
        ValueError: for an unknown prediction, and "v" of a schedule that does not preserve the
            variance.

    Example:

    >>> denoiser = as_eps(lambda x, t: 0.0 * x, "straight", "x0")
    >>> float(denoiser(np.ones((1, 1), "float32"), np.array([0.5]))[0, 0])
    2.0
    """
    # Imported here: schedules import what is checked here.
    from keras_ext.diffusion import schedules

    schedule = schedules.get(schedule)
    check_prediction(schedule, prediction)

    def noise(x, t, **conditions):
        value = denoiser(x, t, **conditions)
        return convert_prediction(value, x, t, schedule, prediction, "eps")

    return noise


def aligned(factor, x):
    """Factors of the samples, (b,) or one for all, as what multiplies x: (b, 1, ...)."""
    factor = ops.cast(factor, "float32")
    if len(factor.shape) == 0:
        return factor
    return ops.reshape(factor, (-1,) + (1,) * (len(x.shape) - 1))
