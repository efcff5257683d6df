"""DDIM backwards: from data to the noise that gives them, and what lies between two images."""

import numpy as np
from keras import ops

from keras_ext.diffusion import schedules
from keras_ext.diffusion.checks import checked_noise
from keras_ext.diffusion.ddim import ddim
from keras_ext.diffusion.hops import bayes_hops
from keras_ext.diffusion.linear_steps import LinearSteps, run
from keras_ext.diffusion.sample_result import SampleResult, sampler
from keras_ext.ops.settings import whole


@sampler
def ddim_encode(
    denoiser,
    schedule,
    x,
    steps,
    prediction="eps",
    spacing="trailing",
    iterations=3,
    clip_x0=None,
    conditions=None,
    return_trajectory=False,
):
    """The noise from which `ddim` of as many steps gives these data.

    Each hop of `ddim` from r to q, x_q = kappa x_r + gamma x0(x_r, r), is solved for x_r by

        x_r <- x_r + w (x_q - kappa x_r - gamma x0(x_r, r)),
        w = 1 / (kappa + gamma alpha_r / (alpha_r^2 + beta_r^2))

    from x_r = w x_q on: one iteration is exact for data that are standard normal. It is the usual
    encoding, with the ends of each hop swapped; with more iterations the inverse becomes exact, as
    far as they converge. They do where hops are short, and do not for single samples that a long hop
    leaves between two modes. The network is never called at time 0.

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`, see `ddim`.
        schedule: a `Schedule` or its name.
        x: (b, ...) float, the data.
        steps: int, number of hops.
        prediction: str, what the denoiser predicts.
        spacing: str or list of times, see `Schedule.grid`.
        iterations: int, network calls a hop.
        clip_x0: pair of floats between which the predicted data are held, or None.
        conditions: dict of further arguments of the denoiser, or None.
        return_trajectory: bool, whether to keep the states, from the data to the noise.

    Returns:
        `SampleResult`, whose `x` is the noise.

    Raises:
        ValueError: as `ddim`; and for one hop from the data to where nothing of them is left.

    Example:

    >>> import keras_ext
    >>> x = keras.random.normal((4, 2), seed=0)
    >>> denoiser = lambda x, t: 0.0 * x  # the data are standard normal: v = 0
    >>> noise = keras_ext.diffusion.ddim_encode(denoiser, "cosine", x, 20, prediction="v").x
    >>> again = keras_ext.diffusion.ddim(denoiser, "cosine", noise, 20, prediction="v").x
    >>> bool(keras.ops.max(keras.ops.abs(again - x)) < 1e-4)
    True

    Source: Denoising Diffusion Implicit Models, Jiaming Song, Chenlin Meng, Stefano Ermon, 2020,
        https://arxiv.org/abs/2010.02502
    """
    schedule = schedules.get(schedule)
    x = checked_noise(x, "x")
    iterations = whole("iterations", iterations)
    times = schedule.grid(steps, spacing)[::-1]
    alpha, beta = schedule.levels(times)
    (a_q, a), (b_q, b) = (alpha[:-1], alpha[1:]), (beta[:-1], beta[1:])
    kappa, gamma, _ = bayes_hops((a, b), (a_q, b_q))
    slope = kappa + gamma * a / (a**2 + b**2)
    if np.any(slope == 0):
        raise ValueError(
            "A hop from the data to where nothing of them is left has no inverse. Expected more "
            f"steps. Received: steps={steps}, schedule={schedule}"
        )
    w = 1.0 / slope
    # The state is x_r and w x_q, with which each hop begins.
    hop = np.stack([1.0 - w * kappa, np.ones_like(w), -w * gamma], axis=-1)
    same = np.broadcast_to(np.array([0.0, 1.0, 0.0]), hop.shape)
    following = np.append(w[1:], 1.0)[:, None] * hop
    mix = np.stack([np.stack([hop, same], 1)] * iterations, axis=1)
    mix[:, -1] = np.stack([following, following], axis=1)
    rows = LinearSteps(
        np.repeat(times[1:], iterations),
        mix.reshape(-1, 2, 3),
        np.zeros((len(w) * iterations, 2)),
        np.repeat(np.arange(len(w)), iterations),
    )
    result, bad = run(
        rows,
        denoiser,
        schedule,
        x * float(w[0]),
        prediction,
        clip_x0=clip_x0,
        conditions=conditions,
        return_trajectory=return_trajectory,
    )
    if return_trajectory:
        # The states of the loop are multiplied by the w of the next hop.
        scale = np.append(w, 1.0).astype("float32").reshape((-1,) + (1,) * len(x.shape))
        result = result._replace(trajectory=result.trajectory / scale[: len(result.trajectory)])
    return result, bad


def interpolate(
    denoiser,
    schedule,
    first,
    second,
    steps,
    weights=(0.0, 0.25, 0.5, 0.75, 1.0),
    prediction="eps",
    spacing="trailing",
    iterations=3,
    conditions=None,
):
    """What lies between two images: their noises turned into each other, and decoded.

        z = (sin((1 - w) a) z_1 + sin(w a) z_2) / sin(a),  cos(a) = <z_1, z_2> / (|z_1| |z_2|)

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`, see `ddim`.
        schedule: a `Schedule` or its name.
        first: (b, ...) float, images.
        second: (b, ...) float, images.
        steps: int, number of hops.
        weights: list of k floats, 0 for the first image, 1 for the second.
        prediction: str, what the denoiser predicts.
        spacing: str or list of times, see `Schedule.grid`.
        iterations: int, see `ddim_encode`.
        conditions: dict of further arguments of the denoiser, of which tensors (b, ...) belong to
            the samples, or None.

    Returns:
        `SampleResult`, whose `x` is (k, b, ...).

    Raises:
        ValueError: if the shapes differ, and as `ddim_encode`.

    Example:

    >>> import keras_ext
    >>> first, second = np.zeros((1, 4)) + 1.0, np.zeros((1, 4)) - np.arange(4)
    >>> denoiser = lambda x, t: 0.5 * x
    >>> result = keras_ext.diffusion.interpolate(denoiser, "cosine", first, second, 10, [0.0, 1.0])
    >>> tuple(result.x.shape)
    (2, 1, 4)

    Source: Denoising Diffusion Implicit Models, Jiaming Song, Chenlin Meng, Stefano Ermon, 2020,
        https://arxiv.org/abs/2010.02502
    """
    first, second = checked_noise(first, "first"), checked_noise(second, "second")
    if tuple(first.shape) != tuple(second.shape):
        raise ValueError(
            "Expected two batches of one shape. "
            f"Received: shapes {tuple(first.shape)} and {tuple(second.shape)}"
        )
    shape, count = ops.shape(first), len(weights)

    def repeated(times):
        tensors = (conditions or {}).items()
        return {name: _tiled(value, shape[0], times) for name, value in tensors}

    options = {"prediction": prediction, "spacing": spacing}
    both = ops.concatenate([first, second])
    codes = ddim_encode(
        denoiser, schedule, both, steps, iterations=iterations, conditions=repeated(2), **options
    )
    between = ops.concatenate([_slerp(*ops.split(codes.x, 2), float(w)) for w in weights])
    result = ddim(denoiser, schedule, between, steps, conditions=repeated(count), **options)
    x = ops.reshape(result.x, (count, *shape))
    return SampleResult(x, None, codes.calls + result.calls)


def _tiled(value, batch, times):
    if not hasattr(value, "shape") or len(value.shape) == 0 or value.shape[0] != batch:
        return value
    return ops.concatenate([ops.convert_to_tensor(value)] * times)


def _slerp(first, second, weight):
    axes = tuple(range(1, len(first.shape)))

    def product(a, b):
        return ops.sum(a * b, axis=axes, keepdims=True)

    norms = ops.sqrt(product(first, first) * product(second, second))
    angle = ops.arccos(ops.clip(product(first, second) / ops.maximum(norms, 1e-20), -1.0, 1.0))
    # Of one direction: on the straight line. (Of opposite ones there is no way to prefer.)
    flat = ops.sin(angle) < 1e-4
    sine = ops.where(flat, 1.0, ops.sin(angle))
    left = ops.where(flat, 1.0 - weight, ops.sin((1.0 - weight) * angle) / sine)
    right = ops.where(flat, weight, ops.sin(weight * angle) / sine)
    return left * first + right * second
