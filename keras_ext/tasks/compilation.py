"""How a task compiles what it trains: where, with which optimizer, and once for all its fits."""

import contextlib
from types import FunctionType

import keras

from keras_ext.keras_internals import copy_exclusions, layers_inside, strategy_of
from keras_ext.ops.settings import number
from keras_ext.optimizers import GuardedLossScale, SummedGradients, WarmupCosine
from keras_ext.optimizers.kinds import undecayed
from keras_ext.optimizers.nested import innermost, nested

# Callbacks that set the learning rate, which a schedule would not let them.
RATE_SETTERS = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)


class Compilations:
    """What a task trains, compiled as its `compile` says: once for all fits that it suits.

    Args:
        parts: list of the models and layers whose weights are trained; the first is a model.
        optimizer: a Keras optimizer or its name, or None for a default one, anew in each fit. A
            given one goes with its slots and its loss scale from one model to the next.
        default: what `default_arguments` gives.
        arguments: dict of other arguments of `keras.Model.compile`.
    """

    def __init__(self, parts, optimizer, default, arguments):
        self.default, self.arguments = default, arguments
        self.optimizer = None
        if optimizer is not None:
            with strategy_scope(parts[0]):
                self.optimizer = _of_its_strategy(keras.optimizers.get(optimizer), parts[0])
                for part in parts if arguments.get("auto_scale_loss", True) else ():
                    self.optimizer = guarded(self.optimizer, part)
        self.last = {}  # by the id of the model

    def get(self, model, loss, callbacks=()):
        """The `Compilation` of a model for a fit with these callbacks."""
        callbacks = keras.tree.flatten(callbacks or ())
        scheduled = not any(isinstance(callback, RATE_SETTERS) for callback in callbacks)
        last = self.last.get(id(model))
        if last is None or not last.suits(scheduled):
            last = Compilation(model, loss, self.optimizer, self.default, self.arguments, scheduled)
            self.last[id(model)] = last
        return last


class Compilation:
    """A model, compiled for a task.

    Args:
        model: `keras.Model` whose weights exist.
        loss: its loss.
        optimizer: a Keras optimizer, or None for a default one.
        default: what `default_arguments` gives.
        arguments: dict of other arguments of `keras.Model.compile`.
        scheduled: bool, whether the rate of a default optimizer follows a schedule.
    """

    def __init__(self, model, loss, optimizer, default, arguments, scheduled):
        self.model = model
        self.trained = [variable.path for variable in model.trainable_variables]
        self.rate = None if optimizer is not None else default["learning_rate"]
        self.schedule, self.position = None, None
        with strategy_scope(model):
            if optimizer is None:
                if scheduled:
                    self.schedule = WarmupCosine(self.rate, steps=1)
                rate = self.schedule or self.rate
                settings = {**default, "learning_rate": rate}
                optimizer = default_optimizer(model.trainable_variables, **settings)
                if arguments.get("auto_scale_loss", True):
                    optimizer = guarded(optimizer, model)
            model.compile(**{"optimizer": optimizer, "loss": loss, **arguments})

    def suits(self, scheduled):
        """Whether it can be used again: by a default optimizer, that of these weights and rate."""
        same = self.trained == [variable.path for variable in self.model.trainable_variables]
        return self.rate is None or (same and scheduled == (self.schedule is not None))

    def begin(self, steps, done=0):
        """Makes the optimizer ready for a fit of `steps` updates, of which some count as done.

        Where none are, a default one begins anew.
        """
        optimizer, steps = self.model.optimizer, max(steps, 1)  # none, where there are no epochs
        if not optimizer.built:
            # Variables that the first step makes would cost a second trace of it.
            with strategy_scope(self.model):
                optimizer.build(self.model.trainable_variables)
        elif self.rate is not None and not done:
            for variable in innermost(optimizer).variables:
                variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
        # A new optimizer has made no update of those that are done.
        offset = done - int(innermost(optimizer).iterations) if done else 0
        if self.schedule is not None and self.position != (steps, offset):
            self.position = self.schedule.steps, self.schedule.offset = steps, offset
            if keras.backend.backend() != "tensorflow":
                self.model.make_train_function(force=True)
        elif self.rate is not None and self.schedule is None:
            optimizer.learning_rate = self.rate


def check_order(optimizer, loss):
    """Raises ValueError for a loss in the place of the optimizer, and the other way round.

    Args:
        optimizer: what the user gave for it, or None.
        loss: likewise.
    """
    if (
        isinstance(optimizer, (keras.losses.Loss, FunctionType))
        or isinstance(loss, keras.optimizers.Optimizer)
        or _names_only(optimizer, keras.losses, keras.optimizers)
        or _names_only(loss, keras.optimizers, keras.losses)
    ):
        raise ValueError(
            "A task is compiled like a Keras model, the optimizer first: compile(optimizer, loss), "
            f"or by name: compile(loss=...). Received: {optimizer=}, {loss=}"
        )


def _names_only(name, kind, other):
    """Whether a string names one of this kind (`keras.losses`, `keras.optimizers`), no other."""
    return isinstance(name, str) and _names(name, kind) and not _names(name, other)


def _names(name, kind):
    try:
        return kind.get(name) is not None
    except ValueError:
        return False


def default_arguments(optimizer, learning_rate, weight_decay, ema_momentum):
    """The settings of `default_optimizer`; None is the default value.

    Args:
        optimizer: what the user chose, or None.
        learning_rate: float, or None for 1e-4.
        weight_decay: float, or None for 0.01.
        ema_momentum: float, or None for no average.

    Returns:
        A dict.

    Raises:
        ValueError: if one is no finite number, or is given together with an optimizer, which has
            its own.
    """
    given = {
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "ema_momentum": ema_momentum,
    }
    given = {name: number(name, value) for name, value in given.items() if value is not None}
    if optimizer is not None and given:
        raise ValueError(
            "An optimizer has settings of its own. Expected them in it, such as "
            "keras.optimizers.AdamW(3e-4, weight_decay=0.01), or no optimizer. "
            f"Received: {optimizer=} with {given}"
        )
    return {"learning_rate": 1e-4, "weight_decay": 0.01, "ema_momentum": None, **given}


def default_optimizer(variables, learning_rate, weight_decay, ema_momentum):
    """AdamW, the norm of all gradients clipped to 1.

    Args:
        variables: list of `keras.Variable`, all that are trained.
        learning_rate: float or schedule.
        weight_decay: float, not for biases, gains of a normalisation and temperatures.
        ema_momentum: float of the average of weights, or None for no average.

    Returns:
        A `keras.optimizers.AdamW` in `SummedGradients`, so that the norm is that of the batch.
    """
    optimizer = keras.optimizers.AdamW(
        learning_rate,
        weight_decay=weight_decay,
        global_clipnorm=1.0,
        use_ema=ema_momentum is not None,
        ema_momentum=0.99 if ema_momentum is None else ema_momentum,
    )
    optimizer.exclude_from_weight_decay(var_list=undecayed(variables))
    return SummedGradients(optimizer)


def guarded(optimizer, model):
    """The optimizer, in a `GuardedLossScale` where a layer of the model computes in float16.

    Keras scales the loss itself only where float16 is the policy of the model object, not that of
    its layers. Without scaling, small gradients vanish in float16.

    Args:
        optimizer: a Keras optimizer. One with loss scaling, of Keras too, stays as it is.
        model: a `keras.Model`, or a layer.

    Returns:
        A Keras optimizer.
    """
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    half = any(layer.compute_dtype == "float16" for layer in (model, *layers_inside(model)))
    return GuardedLossScale(optimizer) if half and not scaled else optimizer


def strategy_scope(model):
    """The scope of the `tf.distribute` strategy that a model was made under.

    Raises:
        ValueError: inside the scope of another strategy than that of the weights.
    """
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    strategy = model.distribute_strategy
    foreign = [
        variable.path
        for variable in model.variables
        if not strategy.extended.variable_created_in_scope(variable.value)
    ]
    if foreign:
        raise ValueError(
            "A strategy trains weights that were made in its scope. Expected the encoder and the "
            "task to be made, or loaded, inside of `with strategy.scope():`. "
            f"Received: {type(strategy).__name__}, {len(foreign)} weights from elsewhere, such as "
            f"{foreign[0]!r}"
        )
    return strategy.scope()


def replicas_of(model):
    """The number of replicas that a model is trained on."""
    if keras.backend.backend() != "tensorflow":
        return 1
    return model.distribute_strategy.num_replicas_in_sync


def _of_its_strategy(optimizer, model):
    """The optimizer, made anew under the strategy of the model if it was made elsewhere."""
    if keras.backend.backend() != "tensorflow":
        return optimizer
    if strategy_of(optimizer) is model.distribute_strategy:
        return optimizer
    if optimizer.built:
        raise ValueError(
            "The optimizer has slots that were made outside of the strategy that trains the model. "
            "Expected a new optimizer, or its name. "
            f"Received: {optimizer!r}, {type(model.distribute_strategy).__name__}"
        )
    made = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    for old, new in zip(nested(optimizer), nested(made), strict=True):
        copy_exclusions(old, new)
    return made
