import math
from numbers import Integral

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_ext")
class PiecewiseLinear(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate on straight lines between given points.

    With the points (t_i, y_i), at step t

        base (y_i + (y_{i+1} - y_i) (t - t_i) / (t_{i+1} - t_i)),   t_i <= t <= t_{i+1}

    and constant after the last point. A step is an update, counted from 0. Steps are exact up to
    2^24, in float32.

    Args:
        points: list of `[step, value]`, by step. A step is an int of at least 0.
        base: float, which multiplies the values.
        from_zero: bool, what comes before the first point, if that is not at step 0: a line from 0
            at step 0 (the first update then has the rate 0), or the value of that point.

    Call arguments:
        step: int scalar.

    Returns:
        float32 scalar.

    Raises:
        ValueError: if there is no point, if steps do not increase, or a value is not finite.

    Example:

    >>> import keras_ext
    >>> points = [[1000, 1.0], [10000, 0.1]]  # warm-up, then down to a tenth
    >>> schedule = keras_ext.optimizers.PiecewiseLinear(points, base=2.0)
    >>> [round(float(schedule(step)), 4) for step in (0, 500, 1000, 5500, 20000)]
    [0.0, 1.0, 2.0, 1.1, 0.2]
    >>> optimizer = keras_ext.optimizers.Tiger(schedule)
    """

    def __init__(self, points, base=1.0, from_zero=True):
        super().__init__()
        if not points or any(len(point) != 2 for point in points):
            raise ValueError(
                f"Expected a list of [step, value] of at least one. Received: {points=}"
            )
        steps = [step for step, _ in points]
        integers = all(isinstance(step, Integral) and step >= 0 for step in steps)
        if not integers or steps != sorted(set(steps)):
            raise ValueError(f"Expected steps of at least 0 that increase. Received: {points=}")
        if not all(math.isfinite(value) for value in (*(value for _, value in points), base)):
            raise ValueError(f"Expected finite values. Received: {points=}, {base=}")
        self.points = [[int(step), float(value)] for step, value in points]
        self.base = base
        self.from_zero = from_zero

    def __call__(self, step):
        step = ops.cast(step, "float32")
        corners = self.points
        if self.from_zero and corners[0][0] > 0:
            corners = [[0, 0.0], *corners]
        value = ops.cast(corners[0][1], "float32")
        for (start, left), (end, right) in zip(corners, corners[1:], strict=False):
            part = ops.clip((step - start) / (end - start), 0.0, 1.0)
            # Exact at both ends: a rate that falls to 0 gets there.
            value = ops.where(step > start, (1.0 - part) * left + part * right, value)
        return self.base * value

    def get_config(self):
        points = [list(point) for point in self.points]
        return {"points": points, "base": self.base, "from_zero": self.from_zero}
