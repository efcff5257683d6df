"""What a denoiser is trained on: times, targets, and what an error weighs at a time."""

import numpy as np
from keras import ops

from keras_ext.diffusion.predictions import aligned, to_x0

WEIGHTS = ("simple", "snr", "min_snr", "edm", "vlb")
TIMES = ("uniform", "low_discrepancy", "logit_normal")
GOLDEN = 0.5 * (5**0.5 - 1.0)


def error_weight(schedule, prediction, loss_weight, t):
    """What the squared error of a prediction weighs in the loss.

    An error e of the prediction is an error q e of the data, x0 = p x + q value; weights are of the
    squared error of the data, with the ratio snr = alpha^2 / beta^2 of signal and noise:

        simple   1 / q^2: the error of the prediction itself; of "score" that of eps
        snr      snr: the error of eps
        min_snr  min(snr, 5)
        edm      snr + 1 / 0.5^2: for data whose standard deviation is near 0.5
        vlb      -1/2 d snr / dt: the bound on the likelihood, nats per number of a sample

    Args:
        schedule: a `Schedule`.
        prediction: str.
        loss_weight: str, one of `WEIGHTS`.
        t: (b,) times above 0, a NumPy array or a tensor.

    Returns:
        (b,), what (value - target)^2 is multiplied by.

    Example:

    >>> from keras_ext.diffusion import schedules
    >>> float(error_weight(schedules.get("straight"), "x0", "min_snr", 0.5))
    1.0

    Source: Efficient Diffusion Training via Min-SNR Weighting Strategy, Tiankai Hang et al., 2023,
        https://arxiv.org/abs/2303.09556 (min_snr); Elucidating the Design Space of Diffusion-Based
        Generative Models, Tero Karras et al., 2022, https://arxiv.org/abs/2206.00364 (edm);
        Variational Diffusion Models, Diederik P. Kingma et al., 2021,
        https://arxiv.org/abs/2107.00630 (vlb)
    """
    alpha, beta = schedule.alpha_bar(t), schedule.beta_bar(t)
    if loss_weight == "simple":
        return beta * beta if prediction == "score" else 0.0 * alpha + 1.0
    _, q = to_x0(schedule, prediction, t)
    if loss_weight == "vlb":
        alpha_slope, beta_slope = schedule.slopes(t)
        return q * q * alpha * (alpha * beta_slope - beta * alpha_slope) / beta**3
    snr = (alpha / beta) ** 2
    if loss_weight == "min_snr":
        snr = ops.minimum(snr, 5.0) if ops.is_tensor(snr) else np.minimum(snr, 5.0)
    return q * q * (snr + 4.0 if loss_weight == "edm" else snr)


def target(schedule, prediction, x0, eps, t):
    """What a denoiser should predict of given data and noise.

    Args:
        schedule: a `Schedule`.
        prediction: str.
        x0: (b, ...) float32, the data.
        eps: (b, ...) float32, the noise.
        t: (b,) float32 tensor.

    Returns:
        (b, ...) float32.

    Example:

    >>> from keras_ext.diffusion import schedules
    >>> x0, eps, t = np.zeros((1, 1)), np.ones((1, 1)), ops.ones((1,))
    >>> float(target(schedules.get("straight"), "velocity", x0, eps, t)[0, 0])
    1.0
    """
    if prediction in ("eps", "x0"):
        return eps if prediction == "eps" else x0
    if prediction == "v":
        return aligned(schedule.alpha_bar(t), x0) * eps - aligned(schedule.beta_bar(t), x0) * x0
    if prediction == "score":
        return -eps / aligned(schedule.beta_bar(t), x0)
    of_x0, of_eps = schedule.slopes(t)
    return aligned(of_x0, x0) * x0 + aligned(of_eps, x0) * eps


def training_times(time_sampling, first, uniform):
    """Times at which a batch is trained, in (first, 1).

    Args:
        time_sampling: str, "uniform"; "low_discrepancy": one in each b-th of the interval, all
            shifted by one random number, so that the loss of a batch varies less; "logit_normal":
            more in the middle, 1 / (1 + exp(-z)), z standard normal.
        first: float, the least time.
        uniform: (b,) float32, random numbers between 0 and 1.

    Returns:
        (b,) float32.

    Example:

    >>> times = training_times("low_discrepancy", 0.0, ops.convert_to_tensor([0.9, 0.4, 0.3, 0.7]))
    >>> [f"{t:.2f}" for t in np.sort(times)]
    ['0.10', '0.35', '0.60', '0.85']

    Source: Variational Diffusion Models, Diederik P. Kingma et al., 2021,
        https://arxiv.org/abs/2107.00630 (low_discrepancy); Scaling Rectified Flow Transformers for
        High-Resolution Image Synthesis, Patrick Esser et al., 2024,
        https://arxiv.org/abs/2403.03206 (logit_normal)
    """
    if time_sampling == "low_discrepancy":
        count = ops.shape(uniform)[0]
        places = ops.arange(count, dtype="int32")
        shares = ops.cast(places, "float32") / ops.cast(count, "float32")
        uniform = ops.mod(uniform[:1] + shares, 1.0)
    elif time_sampling == "logit_normal":
        uniform = ops.sigmoid(2.0**0.5 * ops.erfinv(2.0 * uniform - 1.0))
    return 1.0 - (1.0 - first) * uniform


def validation_times(count, first):
    """Times for a batch that are always the same, and evenly spread for any number of samples.

    Args:
        count: int or int scalar.
        first: float, the least time.

    Returns:
        (count,) float32 in (first, 1).

    Example:

    >>> [f"{t:.3f}" for t in np.asarray(validation_times(4, 0.0))]
    ['0.500', '0.882', '0.264', '0.646']
    """
    places = ops.cast(ops.arange(count, dtype="int32"), "float32")
    return 1.0 - (1.0 - first) * ops.mod(0.5 + GOLDEN * places, 1.0)
