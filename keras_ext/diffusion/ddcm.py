"""Images as short lists of integers: DDPM whose noise is chosen from a codebook."""

import math

import numpy as np
from keras import ops

from keras_ext.diffusion import schedules
from keras_ext.diffusion.checks import checked_noise, is_traced
from keras_ext.diffusion.ddim import hop_rows
from keras_ext.diffusion.linear_steps import call
from keras_ext.diffusion.noise import seed_pair, standard_normal, uniform_integers
from keras_ext.diffusion.predictions import to_x0
from keras_ext.diffusion.sample_result import (
    SampleResult,
    finished,
    finite,
    first_bad,
    none_bad,
    sampler,
)
from keras_ext.ops.settings import whole


def ddcm_encode(
    denoiser,
    schedule,
    x,
    steps,
    entries=64,
    seed=0,
    prediction="eps",
    spacing="trailing",
    conditions=None,
):
    """The codes of images: at each step, the entry that points from the predicted to the true data.

    The noise z of each hop of `ddpm` but the last, and the noise to begin with, are taken from a
    codebook of K standard normal entries, which differs from step to step: the one with the largest
    <z, x - x0>. So an image is steps log2(K) bits. The codebooks are drawn from the seed where they
    are needed, and never held together.

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`, see `ddim`.
        schedule: a `Schedule` or its name.
        x: (b, ...) float, the images.
        steps: int, number of hops, of codes and of network calls.
        entries: int of at least 2, size K of a codebook.
        seed: int or (2,) integers, of the codebooks.
        prediction: str, what the denoiser predicts.
        spacing: str or list of times, see `Schedule.grid`.
        conditions: dict of further arguments of the denoiser, or None.

    Returns:
        (b, steps) int32, from 0 to K - 1, for `ddcm_decode`. In a graph -1 if the denoiser gave NaN.

    Raises:
        ValueError: for bad images, steps, spacing or prediction, and a denoiser that gives NaN.

    Example:

    >>> import keras_ext
    >>> images = np.ones((3, 8, 8, 1), "float32")
    >>> codes = keras_ext.diffusion.ddcm_encode(lambda x, t: 0.5 * x, "cosine", images, 10)
    >>> tuple(codes.shape)
    (3, 10)

    Source: Compressed Image Generation with Denoising Diffusion Codebook Models, Guy Ohayon et al.,
        2025, https://arxiv.org/abs/2502.01189
    """
    x = checked_noise(x, "x")
    shape = (ops.shape(x)[0], *x.shape[1:])
    _, codes, bad = _coded(
        denoiser, schedule, shape, steps, entries, seed, prediction, spacing, conditions, x
    )
    finished(SampleResult(x, None, steps), bad)
    # In a graph, which cannot raise, they are none that can be decoded.
    return ops.where(bad >= 0, -1, codes)


@sampler
def ddcm_decode(
    denoiser,
    schedule,
    codes,
    shape,
    entries=64,
    seed=0,
    prediction="eps",
    spacing="trailing",
    conditions=None,
):
    """The images of codes: `ddpm` with the noise that they name.

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`, as for `ddcm_encode`.
        schedule: a `Schedule` or its name.
        codes: (b, steps) integers.
        shape: sizes of an image, without the batch.
        entries: int, size of a codebook.
        seed: int or (2,) integers, of the codebooks.
        prediction: str, what the denoiser predicts.
        spacing: str or list of times.
        conditions: dict of further arguments of the denoiser, or None.

    Returns:
        `SampleResult`.

    Raises:
        ValueError: for codes that are not integers from 0 to entries - 1, and as `ddcm_encode`.

    Example:

    >>> import keras_ext
    >>> codes = np.zeros((3, 10), "int32")
    >>> result = keras_ext.diffusion.ddcm_decode(lambda x, t: 0.5 * x, "cosine", codes, (8, 8, 1))
    >>> tuple(result.x.shape)
    (3, 8, 8, 1)

    Source: Compressed Image Generation with Denoising Diffusion Codebook Models, Guy Ohayon et al.,
        2025, https://arxiv.org/abs/2502.01189
    """
    if len(codes.shape) != 2 or "int" not in str(codes.dtype):
        raise ValueError(
            "Expected codes (batch, steps) of integers. "
            f"Received: shape={tuple(codes.shape)}, dtype={codes.dtype}"
        )
    codes = ops.cast(codes, "int32")
    if not is_traced() and bool(ops.any(ops.logical_or(codes < 0, codes >= entries))):
        raise ValueError(f"Expected codes from 0 to {entries - 1}. Received others: {codes}")
    steps, shape = codes.shape[1], (ops.shape(codes)[0], *shape)
    x, _, bad = _coded(
        denoiser,
        schedule,
        shape,
        steps,
        entries,
        seed,
        prediction,
        spacing,
        conditions,
        codes=codes,
    )
    return SampleResult(x, None, steps), bad


@sampler
def ddcm_sample(
    denoiser,
    schedule,
    shape,
    steps,
    entries=64,
    seed=0,
    code_seed=None,
    prediction="eps",
    spacing="trailing",
    conditions=None,
):
    """New images: `ddcm_decode` of random codes.

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`, see `ddim`.
        schedule: a `Schedule` or its name.
        shape: sizes of the batch and of an image.
        steps: int, number of hops.
        entries: int, size of a codebook, at most 65,536.
        seed: int or (2,) integers, of the codebooks.
        code_seed: int, (2,) integers, or None for a random one, of the codes.
        prediction: str, what the denoiser predicts.
        spacing: str or list of times.
        conditions: dict of further arguments of the denoiser, or None.

    Returns:
        `SampleResult`.

    Raises:
        ValueError: as `ddcm_encode`.

    Example:

    >>> import keras_ext
    >>> result = keras_ext.diffusion.ddcm_sample(lambda x, t: 0.5 * x, "cosine", (3, 8), 10)
    >>> result.calls
    10

    Source: Compressed Image Generation with Denoising Diffusion Codebook Models, Guy Ohayon et al.,
        2025, https://arxiv.org/abs/2502.01189
    """
    entries, steps = whole("entries", entries, least=2), whole("steps", steps)
    codes = uniform_integers(seed_pair(code_seed), 0, (shape[0], steps), entries)
    return ddcm_decode.__wrapped__(
        denoiser, schedule, codes, shape[1:], entries, seed, prediction, spacing, conditions
    )


def _coded(
    denoiser,
    schedule,
    shape,
    steps,
    entries,
    seed,
    prediction,
    spacing,
    conditions,
    target=None,
    codes=None,
):
    """Samples, their codes (chosen for `target`, or else as given), and the step with a NaN."""
    schedule, seed = schedules.get(schedule), seed_pair(seed)
    entries = whole("entries", entries, least=2)
    times = schedule.grid(steps, spacing)
    rows = hop_rows(schedule, times, eta=1.0)
    factors = to_x0(schedule, prediction, rows.times)
    table = np.stack([rows.times, *factors, *rows.mix[:, 0].T, rows.noise[:, 0]], -1)
    table = ops.convert_to_tensor(table.astype("float32"))
    chosen = ops.zeros((shape[0], steps), "int32") if codes is None else codes
    places = ops.arange(steps, dtype="int32")

    def entry(i, x0, chosen):
        """The noise of code i, (b, ...), and the codes with it."""
        codebook = standard_normal(seed, i, (entries, math.prod(shape[1:])))
        if target is None:
            code = ops.take(chosen, ops.minimum(i, steps - 1), axis=1)
        else:
            error = ops.reshape(target - x0, (shape[0], -1))
            code = ops.argmax(ops.matmul(error, ops.transpose(codebook)), axis=-1)
            code = ops.cast(code, "int32")
            chosen = ops.where(places == i, code[:, None], chosen)
        return ops.reshape(ops.take(codebook, code, axis=0), shape), chosen

    def body(i, state):
        x, chosen, bad = state
        row = ops.take(table, i, axis=0)
        value = call(denoiser, x, row[0], conditions)
        x0 = row[1] * x + row[2] * value
        z, chosen = entry(i + 1, x0, chosen)
        x = row[3] * x + row[4] * x0 + row[5] * z
        return x, chosen, first_bad(finite(value), i, bad)

    first, chosen = entry(0, 0.0, chosen)
    x = float(schedule.beta_bar(times[0])) * first
    state = (x, chosen, none_bad())
    if is_traced():
        return ops.fori_loop(0, steps, body, state)
    for i in range(steps):
        state = body(i, state)
        if int(state[-1]) >= 0:
            break
    return state
