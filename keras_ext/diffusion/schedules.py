"""Schedules by their names."""

import keras

from keras_ext.diffusion.continuous_schedules import (
    EDMSchedule,
    StraightSchedule,
    SubVPSchedule,
    VESchedule,
    VPContinuousSchedule,
)
from keras_ext.diffusion.schedule import Schedule
from keras_ext.diffusion.tabulated_schedules import (
    CosineSchedule,
    CustomSchedule,
    LinearHoSchedule,
    SuLinearSchedule,
)

__all__ = ["NAMES", "CustomSchedule", "Schedule", "get"]

NAMES = {
    "linear_ho": LinearHoSchedule,
    "su_linear": SuLinearSchedule,
    "cosine": CosineSchedule,
    "vp_continuous": VPContinuousSchedule,
    "sub_vp": SubVPSchedule,
    "ve": VESchedule,
    "edm": EDMSchedule,
    "straight": StraightSchedule,
}
"""Name -> class."""


def get(schedule):
    """A schedule, by its name, by its serialised config, or itself.

    Args:
        schedule: a `Schedule`, a name of `NAMES`, or what `keras.saving.serialize_keras_object`
            gives of a schedule.

    Returns:
        A `Schedule`.

    Raises:
        ValueError: for anything else.

    Example:

    >>> schedule = get("ve")
    >>> get(keras.saving.serialize_keras_object(schedule)) == schedule
    True
    """
    if isinstance(schedule, dict):
        schedule = keras.saving.deserialize_keras_object(schedule)
    if isinstance(schedule, str) and schedule in NAMES:
        return NAMES[schedule]()
    if not isinstance(schedule, Schedule):
        raise ValueError(
            f"Expected a Schedule, its config, or a name of {', '.join(NAMES)}. "
            f"Received: schedule={schedule!r}"
        )
    return schedule


def check_made_for(variance, schedule):
    """Refuses a table of variances that belongs to another schedule.

    Args:
        variance: an object, which may have an attribute `schedule`.
        schedule: a `Schedule`.

    Raises:
        ValueError: if that is another one.

    Example:

    >>> check_made_for(object(), get("ve"))
    """
    made_for = getattr(variance, "schedule", None)
    if made_for is not None and get(made_for) != schedule:
        raise ValueError(
            f"The variance was made for another schedule. Expected one for {schedule}. "
            f"Received: variance.schedule={made_for}"
        )
