"""What Tiger's arguments may be, how each variable is treated by them, and which gradients count."""

import math
from typing import NamedTuple

from keras import ops

from keras_ext.keras_internals import decays
from keras_ext.ops.settings import effective
from keras_ext.optimizers.kinds import center, kind, matching, vectors
from keras_ext.optimizers.replicas import squared_norm, values_of, with_values

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


class Rule(NamedTuple):
    """How Tiger treats one variable.

    Args:
        scale: "rows", "all" or None: whose root mean square scales the rate, if any does.
        factor: float on the learning rate.
        weight_decay: float.
        center: float, what shrinking moves the values towards.
        lazy: whether only rows that received a gradient move.
    """

    scale: str | None
    factor: float
    weight_decay: float
    center: float
    lazy: bool

    def rate(self, value, learning_rate, min_rms):
        """The step size, a scalar, or (rows, 1) for a table of rows."""
        rate = self.factor * learning_rate
        if self.scale == "rows":
            mean = ops.mean(ops.square(value), axis=-1, keepdims=True)
        elif self.scale == "all":
            mean = ops.cast(squared_norm(value), value.dtype) / math.prod(value.shape)
        else:
            return rate
        return rate * ops.maximum(ops.sqrt(mean), min_rms)

    def step(self, value, momentum, rate, shrink):
        """What is subtracted from the values."""
        step = rate * ops.sign(momentum) + (rate * self.weight_decay + shrink) * value
        return step - shrink * self.center if self.center else step


def rules(optimizer, variables):
    """The rule of each variable.

    Args:
        optimizer: a `Tiger`.
        variables: list of `keras.Variable`.

    Returns:
        A list of `Rule`.

    Raises:
        ValueError: if a pattern of the user matches no variable.
    """
    alone = vectors(variables, optimizer.vector_vars, "vector_vars")
    centers = [center(variable) for variable in variables]
    rows = [kind(variable) == "table" for variable in variables]
    if optimizer.center_one_vars is not None:
        ones = matching(variables, optimizer.center_one_vars, "center_one_vars")
        centers = [float(one) for one in ones]
    if optimizer.rowwise != "embeddings":
        rows = matching(variables, optimizer.rowwise, "rowwise")
    return [
        _rule(optimizer, variable, vector, middle, by_row and len(variable.shape) > 1)
        for variable, vector, middle, by_row in zip(variables, alone, centers, rows, strict=True)
    ]


def _rule(optimizer, variable, vector, middle, by_row):
    shrinks = not vector and decays(variable, optimizer)
    scale = None if vector else "rows" if by_row else "all"
    scaled = optimizer.scale_parameter
    return Rule(
        scale=scale if scaled else None,
        factor=optimizer.vector_lr_scale if vector and scaled else 1.0,
        weight_decay=(optimizer.weight_decay or 0.0) if shrinks else 0.0,
        center=middle,
        lazy=optimizer.lazy_rows and scale == "rows",
    )


def usable(gradients, nonfinite, scope):
    """Which gradients count.

    Args:
        gradients: list of tensors or sparse gradients.
        nonfinite: "reference": all without a NaN. Else those whose squared norm is finite.
        scope: "variable", or "global": all of them or none.

    Returns:
        A list of boolean scalars.
    """
    if nonfinite == "reference":
        counts = [ops.logical_not(ops.any(ops.isnan(values_of(g)))) for g in gradients]
    else:
        counts = [ops.isfinite(squared_norm(gradient)) for gradient in gradients]
    if scope == "global":
        counts = [ops.all(ops.stack(counts))] * len(counts)
    return counts


def zeros_for(gradients, counts):
    """The gradients that count, and zeros in place of the others."""
    values = [values_of(gradient) for gradient in gradients]

    def chosen():
        return [ops.where(count, v, 0.0) for count, v in zip(counts, values, strict=True)]

    # Nearly always all of them count, and nothing needs to be copied.
    values = ops.cond(ops.all(ops.stack(counts)), lambda: values, chosen)
    return [with_values(g, v) for g, v in zip(gradients, values, strict=True)]
