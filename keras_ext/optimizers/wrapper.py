"""What all optimizers around an optimizer have in common."""

import math
import warnings
from abc import abstractmethod

import keras
import numpy as np

from keras_ext.keras_internals import (
    AveragesInside,
    check_known,
    rate_or_schedule,
    trained_by,
)
from keras_ext.optimizers.nested import side_by_side
from keras_ext.optimizers.replicas import replicas

ORDER = (
    "GuardedLossScale",
    "NonFiniteGuard",
    "GradientAccumulation",
    "SummedGradients",
    "Lookahead",
    "LayerAdaptation",
    "ParameterwiseLR",
)
"""From the outside in. Each may be left out, and stands at most once."""
UNBUILT = -1


class OptimizerWrapper(AveragesInside, keras.optimizers.Optimizer):
    """An optimizer around an optimizer. Abstract: a subclass has `update`.

    The slots are those of both, learning rate and `iterations` those of the inner optimizer: a
    callback that sets the learning rate, a schedule and a metric see what really happens. Saved
    with the model, it goes on where it stopped.

    Args:
        inner_optimizer: a Keras optimizer, its name, or another wrapper that may stand inside.
        name: str.

    Raises:
        ValueError: if the inner optimizer cannot stand inside this one.
    """

    def __init__(self, inner_optimizer, name=None):
        inner_optimizer = checked_inner(inner_optimizer, type(self).__name__)
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = inner_optimizer

    def build(self, variables):
        variables = list(variables)  # a tuple from some callers
        if not self.inner_optimizer.built:
            self.inner_optimizer.build(variables)
        super().build(variables)

    @abstractmethod
    def update(self, gradients, variables):
        """One step: what `apply` does once the optimizer is built.

        Args:
            gradients: list of tensors, sparse gradients or None, of this replica.
            variables: list of `keras.Variable`.
        """

    def apply(self, grads, trainable_variables=None):
        if len(grads) == 0:
            return
        if trainable_variables is None:
            trainable_variables = trained_by(self)
        variables = list(trainable_variables)
        if not self.built:
            with keras.name_scope(self.name, caller=self):
                self.build(variables)
        check_known(variables, self)
        replicas()  # raises where XLA meets several
        self.update(list(grads), variables)

    @property
    def variables(self):
        return own_slots(self) + self.inner_optimizer.variables

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = checked_rate(learning_rate)

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        self.inner_optimizer.finalize_variable_values(var_list)

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def save_own_variables(self, store):
        save_slots(self, store)

    def load_own_variables(self, store):
        load_slots(self, store)

    def get_config(self):
        inner_optimizer = keras.saving.serialize_keras_object(self.inner_optimizer)
        return {"name": self.name, "inner_optimizer": inner_optimizer}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        inner_optimizer = keras.saving.deserialize_keras_object(
            config["inner_optimizer"], custom_objects=custom_objects
        )
        return cls(**{**config, "inner_optimizer": inner_optimizer})


def checked_inner(inner_optimizer, outer):
    """The optimizer inside a wrapper.

    Args:
        inner_optimizer: a Keras optimizer, or what `keras.optimizers.get` takes.
        outer: str, the class of the wrapper.

    Returns:
        The Keras optimizer.

    Raises:
        ValueError: if it cannot stand there.
    """
    inner_optimizer = keras.optimizers.get(inner_optimizer)
    inner = type(inner_optimizer).__name__
    if isinstance(inner_optimizer, keras.optimizers.LossScaleOptimizer) or (
        inner in ORDER and ORDER.index(inner) <= ORDER.index(outer)
    ):
        raise ValueError(
            f"{outer} cannot stand around {inner}. Expected this order, from the outside in, each "
            f"at most once: {', '.join(ORDER)}, a Keras optimizer. Received: "
            f"inner_optimizer={inner_optimizer!r}"
        )
    for optimizer in side_by_side(inner_optimizer):
        _check_one(optimizer, outer)
    return inner_optimizer


def _check_one(optimizer, outer):
    for argument, instead in (
        ("gradient_accumulation_steps", "GradientAccumulation(optimizer, steps)"),
        ("loss_scale_factor", "GuardedLossScale(optimizer, initial_scale, dynamic=False)"),
    ):
        value = getattr(optimizer, argument, None)
        if value is not None:
            raise ValueError(
                f"{outer} cannot stand around an optimizer with {argument}. Expected "
                f"{instead} in its place. Received: {type(optimizer).__name__}({argument}={value!r})"
            )
    checked_rate(rate_or_schedule(optimizer))


def checked_rate(learning_rate):
    """A learning rate, which is finite if it is a number.

    Raises:
        ValueError: if it is NaN or infinite.
    """
    if callable(learning_rate):  # a schedule: a bad value ends as a skipped step
        return learning_rate
    value = float(keras.ops.convert_to_numpy(learning_rate))
    if not math.isfinite(value):
        raise ValueError(f"Expected a finite learning rate. Received: learning_rate={value}")
    return learning_rate


def own_slots(optimizer):
    """The slots of a wrapper without those of the optimizer inside."""
    return keras.optimizers.Optimizer.variables.fget(optimizer)


def save_slots(optimizer, store):
    """Saves the slots of a wrapper. Keras saves those of the inner optimizer beside it."""
    for i, variable in enumerate(own_slots(optimizer)):
        store[str(i)] = keras.ops.convert_to_numpy(variable)
    inner = len(optimizer.inner_optimizer.variables) if optimizer.built else UNBUILT
    store["inner"] = np.array(inner)


def load_slots(optimizer, store):
    """Loads what `save_slots` saved; nothing if that is of a model that was not trained yet.

    As `load_weights` loads the state of the optimizer with the weights, there may be none, or the
    optimizer may not be built: then it warns and goes on, as Keras does.

    Raises:
        ValueError: if that is of another optimizer, or of a model of other shape.
    """
    if "inner" in store.keys() and int(np.array(store["inner"])) == UNBUILT:
        return
    if not optimizer.built or len(store.keys()) == 0:
        warnings.warn(
            f"The state of the optimizer is not loaded: {optimizer.name} is not built yet, or none "
            "was saved. The weights are. Build the optimizer before, to load both.",
            stacklevel=2,
        )
        return
    inner = len(optimizer.inner_optimizer.variables)
    saved = [store[str(i)] for i in range(len(store.keys()) - 1)] if "inner" in store.keys() else []
    shapes = [tuple(value.shape) for value in saved]
    expected = [tuple(variable.shape) for variable in own_slots(optimizer)]
    if shapes != expected or int(np.array(store["inner"])) != inner:
        raise ValueError(
            "The saved state is that of another optimizer or of a model of other shape. Expected "
            f"slots of the shapes {expected} and {inner} of the inner optimizer. Received: "
            f"{shapes} and {np.array(store['inner']) if saved else 'none'} of it"
        )
    for variable, value in zip(own_slots(optimizer), saved, strict=True):
        variable.assign(value)
