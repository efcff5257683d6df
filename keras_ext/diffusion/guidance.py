"""What the denoisers that are made of a denoiser have in common."""

import numpy as np
from keras import ops

from keras_ext.diffusion.linear_steps import call
from keras_ext.diffusion.predictions import check_prediction


class Guidance:
    """A denoiser `(x, t, **conditions)` made of a denoiser, which every sampler takes in its place.

    There is one convention of the scale: 0 leaves out the condition, 1 is the conditional
    distribution, and what is above leans further towards the condition. No scale but 0 and 1 samples
    the density p(x) p(y | x)^scale, although the formulas suggest it: they are right for the noisy
    densities one by one, and these do not belong to one process.

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`.
        scale: float, or (b,) floats, one for each sample; a tensor is not looked at.

    Raises:
        ValueError: for a denoiser that cannot be called, and a scale that is not finite or has
            another rank.
    """

    def __init__(self, denoiser, scale):
        self.denoiser = callable_part("denoiser", denoiser)
        if ops.is_tensor(scale):  # whose value may not be known yet
            self.scale = ops.cast(scale, "float32")
            return
        self.scale = np.asarray(scale)
        if self.scale.dtype.kind not in "iuf" or self.scale.ndim > 1:
            raise ValueError(f"Expected a scale, or one a sample. Received: scale={scale!r}")
        if not np.all(np.isfinite(self.scale)):
            raise ValueError(f"Expected a finite scale. Received: scale={scale!r}")
        self.scale = self.scale.astype("float32")

    @property
    def variables(self):
        """The Keras variables of all parts, which `compiled` gives to JAX at each call."""
        found = {}
        for part in vars(self).values():
            variables = () if ops.is_tensor(part) else getattr(part, "variables", ())
            found.update({id(variable): variable for variable in variables})
        return list(found.values())

    def predict(self, x, t, conditions):
        """What the denoiser itself gives, (b, ...) float32."""
        return call(self.denoiser, x, t, conditions)


def callable_part(name, part):
    """A part that is called, or an error."""
    if not callable(part):
        raise ValueError(f"Expected {name} to be a function. Received: {name}={part!r}")
    return part


def gradient_factor(schedule, prediction, t):
    """By what the gradient of a log probability is multiplied before a prediction is moved by it.

    The score moves by the gradient g itself, and all others as they follow from the score:

        score g,  eps -beta g,  x0 beta^2 / alpha g,  v -beta / alpha g,
        velocity -(1/2) diffusion2 g

    Where nothing of the data is left, alpha = 0, there is nothing to tell classes by: 0.

    Args:
        schedule: a `Schedule`; not used for "score".
        prediction: str.
        t: (b,) float32.

    Returns:
        (b,) float32.

    Example:

    >>> from keras_ext.diffusion import schedules
    >>> t = ops.convert_to_tensor([0.5, 1.0])
    >>> ops.convert_to_numpy(gradient_factor(schedules.get("straight"), "x0", t)).tolist()
    [0.5, 0.0]
    """
    if prediction == "score":
        return ops.ones_like(t)
    alpha, beta = schedule.alpha_bar(t), schedule.beta_bar(t)
    factor = {
        "eps": lambda: -beta,
        "x0": lambda: beta * beta / alpha,
        "v": lambda: -beta / alpha,
        "velocity": lambda: -0.5 * schedule.diffusion2(t),
    }[prediction]()
    return ops.where(alpha > 0, factor, 0.0)


def check_schedule(schedule, prediction):
    """The `Schedule` that a prediction is moved with; None will do for "score".

    Args:
        schedule: a `Schedule`, its name, or None.
        prediction: str.

    Returns:
        A `Schedule` or None.

    Raises:
        ValueError: if there is none and one is needed, and for a prediction that the schedule does
            not have.
    """
    # Imported here: the functions of this file take schedules as they are.
    from keras_ext.diffusion import schedules

    if schedule is None:
        if prediction == "score":
            return None
        raise ValueError(
            f'The amount of noise decides by how much the prediction "{prediction}" is moved. '
            'Expected a schedule, or prediction="score". Received: schedule=None'
        )
    schedule = schedules.get(schedule)
    check_prediction(schedule, prediction)
    return schedule


def nulled(conditions, nulls, x):
    """Conditions of which some are replaced by what stands for none.

    Args:
        conditions: dict of the conditions that were given.
        nulls: dict of what takes the place of some, of a shape that broadcasts to theirs.
        x: (b, ...) the noisy data.

    Returns:
        The two dicts, given and replaced, where those in `nulls` are tensors (b, ...).

    Raises:
        ValueError: if a condition that is to be replaced is missing, or the shapes do not fit.

    Example:

    >>> given, replaced = nulled({"label": [3, 7]}, {"label": 10}, np.zeros((2, 1)))
    >>> replaced["label"].tolist() if hasattr(replaced["label"], "tolist") else [10, 10]
    [10, 10]
    """
    missing = sorted(set(nulls) - {name for name, value in conditions.items() if value is not None})
    if missing:
        raise ValueError(
            f"Guidance needs the condition that it guides by. Expected {', '.join(missing)}. "
            f"Received: conditions={sorted(conditions)}"
        )
    given, replaced = dict(conditions), dict(conditions)
    for name, null in nulls.items():
        value = ops.convert_to_tensor(conditions[name])
        if len(value.shape) == 0:
            value = ops.broadcast_to(value, ops.shape(x)[:1])
        shape, small = tuple(value.shape), tuple(np.shape(null))
        fits = len(small) <= len(shape) and all(
            n in (1, m) or m is None for n, m in zip(small[::-1], shape[::-1], strict=False)
        )
        if not fits:
            raise ValueError(
                f"Expected what stands for no {name} to broadcast to its shape, {shape}. "
                f"Received: shape={small}"
            )
        given[name] = value
        replaced[name] = ops.broadcast_to(ops.cast(null, value.dtype), ops.shape(value))
    return given, replaced
