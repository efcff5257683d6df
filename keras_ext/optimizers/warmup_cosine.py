import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_ext")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises on a line from 0 to a peak, and falls along a cosine to 0.

    With w = max(floor(steps / 10), 1) steps of warm-up, at step t

        peak t / w,                                         t < w
        peak (1 + cos(pi min((t - w) / (steps - w), 1))) / 2,    t >= w

    A step is an update, counted from `offset`. Both numbers can be set at any time, and a training
    function of TensorFlow follows them without a new trace. (On JAX a function keeps the numbers it
    was traced with.)

    Args:
        peak: float, the highest rate.
        steps: int of at least 1, updates until the rate is 0.
        offset: int, updates that were made before those that are counted: t is the step and them.

    Call arguments:
        step: int scalar.

    Returns:
        float32 scalar.

    Raises:
        ValueError: if the peak is not finite or there are no steps.

    Example:

    >>> schedule = WarmupCosine(0.5, steps=20)
    >>> [round(float(schedule(step)), 4) for step in (0, 1, 2, 11, 20)]
    [0.0, 0.25, 0.5, 0.25, 0.0]
    >>> schedule.steps = 10
    >>> round(float(schedule(1)), 4)
    0.5

    Source: Ilya Loshchilov and Frank Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts,
    2017, https://arxiv.org/abs/1608.03983
    """

    def __init__(self, peak, steps, offset=0):
        super().__init__()
        if not math.isfinite(peak):
            raise ValueError(f"Expected a finite peak. Received: {peak=}")
        self.peak = float(peak)
        _check_steps(steps)
        settings = {"dtype": "float32", "trainable": False}
        self._steps = keras.Variable(float(steps), name="steps", **settings)
        self._offset = keras.Variable(float(offset), name="offset", **settings)

    @property
    def steps(self):
        """The number of updates until the rate is 0."""
        return int(ops.convert_to_numpy(self._steps))

    @steps.setter
    def steps(self, steps):
        _check_steps(steps)
        self._steps.assign(float(steps))

    @property
    def offset(self):
        """The number of updates that were made before those that are counted."""
        return int(ops.convert_to_numpy(self._offset))

    @offset.setter
    def offset(self, offset):
        self._offset.assign(float(offset))

    def __call__(self, step):
        step = ops.cast(step, "float32") + ops.convert_to_tensor(self._offset)
        steps = ops.convert_to_tensor(self._steps)
        warmup = ops.maximum(ops.floor(steps / 10.0), 1.0)
        part = ops.clip((step - warmup) / ops.maximum(steps - warmup, 1.0), 0.0, 1.0)
        fall = (1.0 + ops.cos(math.pi * part)) / 2.0
        return self.peak * ops.where(step < warmup, step / warmup, fall)

    def get_config(self):
        return {"peak": self.peak, "steps": self.steps, "offset": self.offset}


def _check_steps(steps):
    """Raises for a number of steps that is not positive."""
    if steps < 1:
        raise ValueError(f"Expected a number of steps of at least 1. Received: {steps=}")
