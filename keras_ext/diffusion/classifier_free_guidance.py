"""Guidance by the difference of a network with and without its condition."""

import numpy as np
from keras import ops

from keras_ext.diffusion import schedules
from keras_ext.diffusion.guidance import Guidance, nulled
from keras_ext.diffusion.linear_steps import call
from keras_ext.diffusion.predictions import aligned
from keras_ext.ops.settings import number


class ClassifierFreeGuidance(Guidance):
    """A denoiser that leans towards its condition y, by how its prediction changes without it.

        prediction = (1 - scale) f(x, t, none) + scale f(x, t, y)

    A scale of 1 is the conditional denoiser, 0 the unconditional one; above 1 samples are more
    typical of the condition and less diverse. (Some programs call scale - 1 the scale.) It holds for
    every prediction, as all are linear in each other. See `Guidance` for what it does not sample.

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`; a network that was trained with the
            condition left out for some of the examples.
        scale: float, or (b,) floats, one for each sample. With the float 1 the network is called
            with the condition alone.
        unconditional: dict of what stands for no condition, by name, of a shape that broadcasts to
            that of the condition: `{"label": num_classes}`. Conditions that it does not name stay as
            they are. The conditional and the unconditional rows go through the denoiser in one call
            of 2b rows; other conditions whose first axis is that of the batch are doubled too.
            None: a denoiser that can be called without conditions is, in a second call.
        interval: pair of floats, the least and the largest sigma = beta / alpha between which there
            is guidance; the scale is 1 elsewhere. Needs a schedule. None: everywhere.
        rescale: float from 0 to 1, how much the standard deviation of each sample's prediction (of
            what the denoiser predicts, over all its numbers) is brought back to that of the
            conditional prediction: 0 not at all, 1 exactly. Large scales make it too large.
        negative: dict of conditions to lean away from, in place of those in `unconditional`; a scale
            of 0 samples them.
        schedule: a `Schedule` or its name, only for the interval.

    Raises:
        ValueError: for a bad scale, interval or rescale; when called, without a condition, or
            without one that `unconditional` or `negative` names.

    Example:

    >>> import numpy as np
    >>> from keras_ext.diffusion import ClassifierFreeGuidance, ddim
    >>> def denoiser(x, t, label):  # the data are the number of their class, 0 for no class
    ...     return 0.0 * x + ops.cast(label, "float32")[:, None]
    >>> guided = ClassifierFreeGuidance(denoiser, scale=3.0, unconditional={"label": 0})
    >>> noise, conditions = np.ones((2, 1)), {"label": np.array([1, 2])}
    >>> x = ddim(guided, "cosine", noise, 5, prediction="x0", conditions=conditions).x
    >>> ops.convert_to_numpy(x).tolist()
    [[3.0], [6.0]]

    Source: Classifier-Free Diffusion Guidance, Jonathan Ho, Tim Salimans, 2022,
        https://arxiv.org/abs/2207.12598; Applying Guidance in a Limited Interval Improves Sample and
        Distribution Quality in Diffusion Models, Tuomas Kynkaanniemi et al., 2024,
        https://arxiv.org/abs/2404.07724 (interval); Common Diffusion Noise Schedules and Sample
        Steps are Flawed, Shanchuan Lin et al., 2023, https://arxiv.org/abs/2305.08891 (rescale)
    """

    def __init__(
        self,
        denoiser,
        scale,
        unconditional=None,
        interval=None,
        rescale=0.0,
        negative=None,
        schedule=None,
    ):
        super().__init__(denoiser, scale)
        for name, nulls in (("unconditional", unconditional), ("negative", negative)):
            if nulls is not None and not (isinstance(nulls, dict) and nulls):
                raise ValueError(f"Expected {name} as a dict. Received: {name}={nulls!r}")
        self.nulls = {**(unconditional or {}), **(negative or {})}
        self.rescale = number("rescale", rescale)
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"Expected rescale from 0 to 1. Received: rescale={rescale}")
        self.interval = None if interval is None else _checked(interval, schedule)
        self.schedule = None if schedule is None else schedules.get(schedule)

    def __call__(self, x, t, **conditions):
        if all(value is None for value in conditions.values()):
            raise ValueError(
                "Guidance needs a condition. Expected conditions={...} of the sampler. "
                f"Received: conditions={conditions}"
            )
        x = ops.convert_to_tensor(x)
        given, nulls = nulled(conditions, self.nulls, x)
        if isinstance(self.scale, np.ndarray) and self.scale.ndim == 0 and self.scale == 1:
            return self.predict(x, t, given)
        if self.nulls:
            # (b, ...) -> (2b, ...)
            twice = {name: _twice(given[name], nulls[name], x) for name in given}
            x, t = ops.concatenate([x, x]), ops.concatenate([t, t])
            conditional, other = ops.split(self.predict(x, t, twice), 2)
            t = ops.split(t, 2)[0]
        else:
            conditional, other = self.predict(x, t, given), call(self.denoiser, x, t)
        scale = aligned(self._scale(t), conditional)
        # Exact for 0 and 1.
        guided = (1.0 - scale) * other + scale * conditional
        if not self.rescale:
            return guided
        std, target = _std(guided), _std(conditional)
        ratio = ops.where(std > 0, target / ops.where(std > 0, std, 1.0), 1.0)
        return (self.rescale * ratio + 1.0 - self.rescale) * guided

    def _scale(self, t):
        if self.interval is None:
            return self.scale
        low, high = self.interval
        sigma = self.schedule.sigma(t)
        inside = ops.logical_and(sigma >= low, sigma <= high)
        return ops.where(inside, self.scale, 1.0)


def _checked(interval, schedule):
    if schedule is None:
        raise ValueError(
            "The interval is one of sigma. Expected the schedule, which says it at a time. "
            "Received: schedule=None"
        )
    try:
        low, high = map(float, interval)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not 0 <= low < high:
        raise ValueError(f"Expected an interval 0 <= low < high. Received: interval={interval!r}")
    return low, high


def _twice(given, null, x):
    """A condition of the conditional rows and of the others."""
    if given is not null:
        return ops.concatenate([given, null])
    shape = getattr(given, "shape", ())
    if len(shape) == 0 or not (shape[0] is None or x.shape[0] in (None, shape[0])):
        return given
    return ops.concatenate([ops.convert_to_tensor(given)] * 2)


def _std(value):
    return ops.std(value, axis=tuple(range(1, len(value.shape))), keepdims=True)
