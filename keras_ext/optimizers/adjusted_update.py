"""What the wrappers that change the update of another optimizer have in common."""

import keras
from keras import ops

from keras_ext.keras_internals import averages, place_of
from keras_ext.optimizers.nested import innermost, side_by_side
from keras_ext.optimizers.wrapper import OptimizerWrapper


class AdjustedUpdate(OptimizerWrapper):
    """An optimizer that changes the update of the one inside. Abstract.

    The inner optimizer updates the weights, whatever its rule; then others take their place. So
    any update can be changed, and the slots of the inner optimizer know nothing of it. Constraints
    are applied again, and averages of the weights (`use_ema`) are those of the final weights.

    Args:
        inner_optimizer: a Keras optimizer, its name, or a wrapper that may stand inside.
        name: str.

    Raises:
        ValueError: if the inner optimizer cannot stand inside, or keeps copies of the weights.
    """

    def __init__(self, inner_optimizer, name=None):
        super().__init__(inner_optimizer, name=name)
        check_base(self)

    def build(self, variables):
        super().build(variables)
        check_base(self)  # a MultiOptimizer may know its optimizers only now

    def adjusted_update(self, gradients, variables, adjustments):
        """The update of the inner optimizer, changed.

        Args:
            gradients: list of tensors, sparse gradients or None, of this replica.
            variables: list of `keras.Variable`.
            adjustments: list, for each variable a function of its values before and after the
                update that returns the final one, or None where the update stays as it is.
        """
        first = self.is_first_update()
        adjusted = [
            (variable, ops.copy(variable), adjust)
            for variable, adjust in zip(variables, adjustments, strict=True)
            if adjust is not None
        ]
        self.inner_optimizer.apply(gradients, variables)
        for variable, before, adjust in adjusted:
            final = adjust(before, variable.value)
            # What must not move is not even rounded to its constraint.
            self.replace(variable, final, first, constrain=final is not before)

    def is_first_update(self):
        """Whether the inner optimizer has not updated yet: its averages then are no averages."""
        return ops.equal(ops.copy(self.iterations), 0)

    def replace(self, variable, value, first, constrain=True):
        """Puts another value in the place of what the inner optimizer has made of a weight.

        Args:
            variable: a `keras.Variable`.
            value: tensor.
            first: boolean scalar, whether it was the first update.
            constrain: bool, whether the constraint of the variable is applied.
        """
        base = innermost(self)
        average = None
        if base.use_ema:
            average = averages(base)[place_of(variable, base)]
        after = None if average is None else ops.copy(variable)
        variable.assign(value)
        if constrain and variable.constraint is not None:
            variable.assign(variable.constraint(variable))
        if average is not None:
            # It is linear in the weight: the difference is added with the same factor.
            factor = ops.cast(1.0 - ops.where(first, 0.0, base.ema_momentum), after.dtype)
            average.assign(average + factor * (variable - after))


def check_base(wrapper):
    """Checks that an optimizer bears that its update is changed.

    Args:
        wrapper: an `AdjustedUpdate`.

    Raises:
        ValueError: if not.
    """
    base = innermost(wrapper)
    reason = None
    for optimizer in side_by_side(base):
        if isinstance(optimizer, (keras.optimizers.ScheduleFreeAdamW, keras.optimizers.Ftrl)):
            reason = "its slots hold the weights, and the next update would undo the change"
        elif getattr(optimizer, "count_micro_steps", False):
            reason = "with count_micro_steps nothing tells updates from micro-steps"
        elif optimizer.use_ema and optimizer is not base:
            reason = "a MultiOptimizer hides the averages of the weights (use_ema) inside it"
        elif optimizer.use_ema and optimizer.ema_overwrite_frequency:
            reason = (
                "ema_overwrite_frequency mixes the averages with the update; expected the callback "
                "SwapEMAWeights in its place"
            )
        if reason is not None:
            raise ValueError(
                f"{type(wrapper).__name__} cannot change the update of "
                f"{type(optimizer).__name__}: {reason}. Received: inner_optimizer={base!r}"
            )
