"""What Tiger takes: arguments, variables in half precision, saved states."""

import math
import warnings

from keras_ext.ops.settings import effective

ARGUMENTS = (
    "beta",
    "scale_parameter",
    "vector_lr_scale",
    "min_rms",
    "rowwise",
    "vector_vars",
    "center_one_vars",
    "nonfinite",
    "nonfinite_scope",
    "shrink_ratio",
    "lazy_rows",
    "count_micro_steps",
)
NONFINITE = ("skip", "shrink", "propagate", "reference")
SCOPES = ("variable", "global")
HALF = ("float16", "bfloat16")


def check_arguments(optimizer):
    """Checks the arguments of a `Tiger`, and fills in the defaults of those that have an effect.

    Raises:
        ValueError: if one is out of its range, or was given and has no effect.
    """
    for name, allowed in (("nonfinite", NONFINITE), ("nonfinite_scope", (*SCOPES, None))):
        value = getattr(optimizer, name)
        if value not in allowed:
            raise ValueError(f"Expected {name} to be one of {allowed}. Received: {name}={value!r}")
    scaled = "scale_parameter=True", bool(optimizer.scale_parameter)
    checked = "a check, not nonfinite='propagate'", optimizer.nonfinite != "propagate"
    shrinks = "nonfinite='shrink' or 'reference'", optimizer.nonfinite in ("shrink", "reference")
    for name, default, (condition, holds) in (
        ("vector_lr_scale", 0.5, scaled),
        ("min_rms", 1e-3, scaled),
        ("nonfinite_scope", "variable", checked),
        ("shrink_ratio", 0.99, shrinks),
        ("center_one_vars", None, shrinks),
    ):
        value = effective(name, getattr(optimizer, name), default, condition, holds)
        setattr(optimizer, name, value)
    if not 0 <= optimizer.beta < 1:
        raise ValueError(f"Expected beta in [0, 1). Received: beta={optimizer.beta}")
    ratio = optimizer.shrink_ratio
    if ratio is not None and not 0 <= ratio <= 1:
        raise ValueError(f"Expected shrink_ratio in [0, 1]. Received: shrink_ratio={ratio}")
    for name in ("weight_decay", "vector_lr_scale", "min_rms"):
        value = getattr(optimizer, name)
        if not 0 <= (value or 0.0) < math.inf:
            raise ValueError(f"Expected a finite {name} of at least 0. Received: {name}={value}")
    if optimizer.loss_scale_factor is not None:
        raise ValueError(
            "Tiger has no loss_scale_factor. Expected GuardedLossScale(Tiger(...), initial_scale, "
            f"dynamic=False). Received: loss_scale_factor={optimizer.loss_scale_factor}"
        )


def add_momentums(optimizer, variables):
    """Adds the slots in which the gradients are summed up.

    Half precision would be too coarse for sums. It is too coarse for weights as well: they are
    rounded to where they were. So it warns of them.
    """
    half = [variable.path for variable in variables if variable.dtype in HALF]
    if half:
        warnings.warn(
            "A weight in half precision does not move by less than its spacing, 0.1 to 1 %: "
            "training may stand still. Expected float32 weights, as under mixed_float16. "
            f"Received: {half[:5]}",
            stacklevel=3,
        )
    return [
        optimizer.add_variable(variable.shape, dtype="float32", name="momentum")
        if variable.dtype in HALF
        else optimizer.add_variable_from_reference(variable, name="momentum")
        for variable in variables
    ]


def check_slots(optimizer, store):
    """Raises where a saved state is not that of the variables of an optimizer.

    Args:
        optimizer: a built Keras optimizer.
        store: dict-like of arrays, as `load_own_variables` takes.

    Raises:
        ValueError: as it says.
    """
    keys = set(store.keys())
    saved = [tuple(store[str(i)].shape) for i in range(len(keys)) if str(i) in keys]
    expected = [tuple(variable.shape) for variable in optimizer.variables]
    # One that was saved before it was built has a count and a rate. Keras passes over it.
    if optimizer.built and len(saved) > 2 and saved != expected:
        raise ValueError(
            "The saved state is that of another optimizer or of a model of other shape. Expected "
            f"slots of the shapes {expected}. Received: {saved}"
        )
