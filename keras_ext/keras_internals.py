"""All private names of Keras that this package uses, as functions that say what they mean.

An optimizer around an optimizer needs what Keras' own keep to themselves, and some models and
tasks need what Keras tells nobody of its layers. Here, below every room, as optimizers, training
and tasks need them. `tests/test_keras_internals.py` uses each on real objects: where another
version of Keras has changed one, it says which.
"""

import keras


def trained_by(optimizer):
    """The variables that an optimizer was built for, in their order."""
    return optimizer._trainable_variables


def place_of(variable, optimizer):
    """The place of a variable in `trained_by(optimizer)`."""
    return optimizer._get_variable_index(variable)


def check_known(variables, optimizer):
    """Raises ValueError for a variable that an optimizer was not built for."""
    optimizer._check_variables_are_known(variables)


def without_missing(gradients, variables, optimizer):
    """The gradients that are not None, and their variables; warns of the others.

    Raises:
        ValueError: if all are None.
    """
    return optimizer._filter_empty_gradients(gradients, variables)


def clipped(gradients, optimizer):
    """Gradients, clipped as the arguments of an optimizer say."""
    return optimizer._clip_gradients(gradients)


def decays(variable, optimizer):
    """Whether `exclude_from_weight_decay` of an optimizer leaves a variable in."""
    return optimizer._use_weight_decay(variable)


def copy_exclusions(old, new):
    """Excludes from weight decay in a new optimizer what is excluded in an old one.

    It is no setting that Keras saves, and a built optimizer could not be asked for it.
    """
    names = [name for name in vars(old) if name.startswith("_exclude_from_weight_decay")]
    vars(new).update({name: vars(old)[name] for name in names})


def rate_or_schedule(optimizer):
    """The learning rate of an optimizer as it was given: a variable, a schedule or a function."""
    return optimizer._learning_rate


def steps_taken(optimizer):
    """The variable that counts the calls of `apply`, where `iterations` may count updates."""
    return optimizer._iterations


def averages(optimizer):
    """The averages of the weights of a built optimizer with `use_ema`, one for each it trains."""
    return optimizer._model_variables_moving_average


def strategy_of(optimizer):
    """The `tf.distribute` strategy under which an optimizer was made (TensorFlow)."""
    return optimizer._distribution_strategy


class AveragesInside:
    """Shows `keras.callbacks.SwapEMAWeights` the averages of the optimizer inside a wrapper."""

    @property
    def _model_variables_moving_average(self):
        return averages(self.inner_optimizer)


class AllAtOnce:
    """Lets an optimizer's own `update` have all gradients at once.

    Keras' `apply` calls it in place of clipping, weight decay, an `update_step` for each variable,
    averages and the exchange between replicas; it still filters what has no gradient before, and
    applies constraints and counts the step after.
    """

    def _backend_apply_gradients(self, grads, trainable_variables):
        self.update(grads, trainable_variables)


def layers_inside(layer):
    """All layers inside of a layer or model, however deep, each once."""
    return list(layer._flatten_layers(include_self=False))


def made_trainable(layer):
    """A layer's own weights that were made as trainable ones, frozen or not."""
    return layer._trainable_variables


def forget_resumed_epoch(model):
    """Forgets where `keras.callbacks.BackupAndRestore` resumed a fit: the next would skip to it."""
    model._initial_epoch = None


def is_within_fit(named):
    """Whether Keras' `fit` calls `evaluate`, by its arguments by name."""
    return "_use_cached_eval_dataset" in named


def separate_losses(layer):
    """Keeps apart what a layer adds with `add_loss` on several replicas (`tf.distribute`).

    For a layer that waits for the other replicas in its call. Keras has one list for the threads
    of all replicas, and empties it where a call of the model begins: a thread that goes on after
    waiting finds the losses of others.
    """
    layer._losses = LossesByReplica()


class LossesByReplica:
    """A list for each replica, of which one sees its own; outside of replicas the first's is seen.

    It has of a list what `keras.layers.Layer` uses of that of its losses.
    """

    def __init__(self):
        self.lists = {}

    def here(self):
        """The list of the replica that asks."""
        return self.lists.setdefault(current_replica(), [])

    def extend(self, losses):
        self.here().extend(losses)

    def clear(self):
        self.here().clear()

    def __getitem__(self, part):
        return self.here()[part]


def current_replica():
    """The number of the replica that runs here; 0 where there is one or none.

    In a graph it is a constant, or not known: then one graph is traced for all replicas, as 0.
    """
    if keras.backend.backend() != "tensorflow":
        return 0
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None:
        return 0
    number = tf.get_static_value(tf.convert_to_tensor(context.replica_id_in_sync_group))
    return 0 if number is None else int(number)
