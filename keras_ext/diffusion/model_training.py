"""What models of diffusion and of flows share in training: labels, checks, the loss, `fit`."""

import contextlib
import inspect

import keras
import numpy as np
from keras import ops

from keras_ext.diffusion.data_checks import check_data, check_labels
from keras_ext.diffusion.kept_samplers import averaged
from keras_ext.diffusion.noise import uniform
from keras_ext.keras_internals import is_within_fit
from keras_ext.ops.settings import number


def checked_network(network):
    """A network that has its weights.

    Args:
        network: `keras.Model`.

    Returns:
        The network.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(network, keras.Model) or not network.built:
        raise ValueError(
            "Expected a network that is a keras.Model and has its weights. "
            f"Received: network={network!r}"
        )
    return network


def checked_dropout(cond_dropout, num_classes):
    """The share of labels that are dropped.

    Args:
        cond_dropout: float.
        num_classes: int or None.

    Returns:
        float.

    Raises:
        ValueError: if it is not in [0, 1), or not 0 without classes.
    """
    share = number("cond_dropout", cond_dropout)
    if not 0.0 <= share < 1.0 or (share and num_classes is None):
        raise ValueError(
            "Expected cond_dropout in [0, 1), and 0 for a network without `num_classes`. "
            f"Received: cond_dropout={cond_dropout}, num_classes={num_classes}"
        )
    return share


def sample_shape_of(network):
    """The shape of one sample, of the input `x`; None where the network does not say it."""
    inputs = getattr(network, "inputs", None) or []
    return next((tuple(x.shape[1:]) for x in inputs if x.name == "x"), None)


def with_labels(data, num_classes):
    """A batch of `fit` whose labels are part of its inputs, where the call finds them.

    Args:
        data: what Keras gives `train_step`.
        num_classes: int, or None.

    Returns:
        Dict of inputs, None, and the sample weights or None.

    Raises:
        ValueError: if the network has classes and there are no labels.
    """
    x, label, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    inputs = dict(x) if isinstance(x, dict) else {"x": x}
    if label is not None and 0 not in label.shape[1:]:  # else it is there for the weights
        inputs["label"] = label
    _check_given(inputs.get("label"), num_classes)
    return inputs, None, sample_weight


def _check_given(label, num_classes):
    if label is None and num_classes is not None:
        raise ValueError(
            "Expected labels: the network has classes. (The label num_classes stands for none.) "
            f"Received: num_classes={num_classes}, label=None"
        )


def checked_fit(model, fit, *arguments, **named):
    """Keras' `fit`, once all that can be seen of the data and of `validation_data` is fine.

    Args:
        model: `keras.Model` with a method `_check_arrays(x, y)`.
        fit: that of `keras.Model`, bound to the model.
        *arguments: of `fit`.
        **named: of `fit`.

    Returns:
        What `fit` gives.

    Raises:
        ValueError: as `_check_arrays` does, before the first step.
    """
    bound = inspect.signature(fit).bind(*arguments, **named)
    given = bound.arguments
    given["y"] = _targets(model, *(given.get(name) for name in ("x", "y", "sample_weight")))
    if given.get("validation_data") is not None:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(given["validation_data"])
        given["validation_data"] = x, _targets(model, x, y, weight), weight
    build_optimizer(model)
    history = fit(*bound.args, **bound.kwargs)
    separate_averages(model)
    return history


def checked_evaluate(model, evaluate, *arguments, **named):
    """Keras' `evaluate`, once all that can be seen of the data is fine; see `checked_fit`."""
    if is_within_fit(named):  # which has looked at the data
        return evaluate(*arguments, **named)
    bound = inspect.signature(evaluate).bind(*arguments, **named)
    given = bound.arguments
    given["y"] = _targets(model, *(given.get(name) for name in ("x", "y", "sample_weight")))
    return evaluate(*bound.args, **bound.kwargs)


def _targets(model, x, y, sample_weight):
    """Checked targets: of weights without any (n, 0), as Keras would drop the weights."""
    model._check_arrays(x, y)
    if sample_weight is None:
        return y
    count, data = len(sample_weight), x.get("x") if isinstance(x, dict) else x
    if isinstance(data, tuple | list):
        data = data[0]
    if hasattr(data, "shape") and data.shape[0] != count:
        raise ValueError(
            f"Expected one weight for each sample, sample_weight of {data.shape[0]}. "
            f"Received: sample_weight of {count}"
        )
    return np.zeros((count, 0)) if y is None else y


def check_arrays(x, label, shape, num_classes):
    """Refuses what can be seen of arrays alone; of data sets the call sees dtype and shape.

    Args:
        x: an array, a dict with `x` and maybe `label`, or anything else, which is let pass.
        label: array or None.
        shape: tuple, that of one sample, or None.
        num_classes: int, or None.

    Raises:
        ValueError: see `check_data` and `check_labels`.
    """
    if isinstance(x, dict):
        x, label = x.get("x"), x.get("label", label)
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        check_data(x, shape)
        # Here, too: what is raised within a step leaves a model on JAX without its weights.
        _check_given(label, num_classes)
        if label is not None:
            label = label if hasattr(label, "dtype") else np.asarray(label)
            check_labels(label, num_classes, x.shape[0])


def dropped(label, share, num_classes, seed):
    """Labels of which a share is that of no class.

    Args:
        label: (b,) or (b, 1) integers, or None.
        share: float.
        num_classes: int, the label of no class.
        seed: (2,) uint32; draw 2 under it is taken.

    Returns:
        (b,) int32, or what was given if there is nothing to drop.
    """
    if label is None or not share:
        return label
    label = ops.reshape(ops.cast(label, "int32"), (-1,))
    return ops.where(uniform(seed, 2, ops.shape(label)) < share, num_classes, label)


def network_inputs(x, t, label, num_classes):
    """The dict that a network is called with.

    Args:
        x: (b, ...) float32.
        t: (b,) float32.
        label: (b,) or (b, 1) integers, or None, which stands for no class.
        num_classes: int; None: the network has no labels.

    Returns:
        dict.

    Raises:
        ValueError: for labels of a network that has none.
    """
    inputs = {"x": x, "t": t}
    if num_classes is not None:
        if label is None:
            label = ops.full(ops.shape(x)[:1], num_classes, "int32")
        inputs["label"] = ops.reshape(ops.cast(label, "int32"), (-1,))
    elif label is not None:
        check_labels(label, None)
    return inputs


def mean_of_losses(model, x, y, y_pred, sample_weight):
    """The loss of a model whose outputs are the losses of its samples.

    Args:
        model: `keras.Model`, compiled.
        x: inputs.
        y: None.
        y_pred: (b,) float32, losses that are not negative.
        sample_weight: (b,), or None.

    Returns:
        The mean, and the losses of the layers, a scalar.

    Raises:
        ValueError: if a loss was passed to `compile`.
    """
    if model.loss is not None:
        raise ValueError(
            "The model has a loss of its own. Expected compile(optimizer) without a loss. "
            f"Received: loss={model.loss!r}"
        )
    # The losses are not negative: Keras' mean of them, with weights, on replicas.
    y_pred = y_pred[:, None]  # (b, 1)
    mean = keras.losses.MeanAbsoluteError()
    loss = mean(ops.zeros_like(y_pred), y_pred, sample_weight)
    return loss + keras.Model.compute_loss(model, x, y, y_pred) if model.losses else loss


def build_optimizer(model):
    """Builds the optimizer before a fit: else Keras makes its slots while it traces, and traces again."""
    if model.compiled and not model.optimizer.built:
        strategy = getattr(model, "distribute_strategy", None)  # TensorFlow's
        with strategy.scope() if strategy else contextlib.nullcontext():
            model.optimizer.build(model.trainable_variables)


def separate_averages(model):
    """After a fit on JAX, gives the averages arrays of their own.

    Keras has made the averages the weights: one array in two places, which the next evaluation would
    delete.
    """
    if keras.config.backend() == "jax":
        for _, average in averaged(model.optimizer):
            average.assign(ops.copy(average))


def untrained(model, *parts):
    """The variables of a model with a part that stays as it is, all but those that it trains.

    Args:
        model: `keras.Model` with `trainable_variables`.
        *parts: functions that it calls: those that are no layers, such as a model's `denoiser()`,
            say their `variables`, which JAX would otherwise hold as constants.

    Returns:
        List of variables.
    """
    found = [*model.variables, *(v for part in parts for v in getattr(part, "variables", ()))]
    taken = {id(variable) for variable in model.trainable_variables}
    return [v for v in {id(v): v for v in found}.values() if id(v) not in taken]


def check_savable(name, part):
    """Refuses a function that would be saved and could not be loaded.

    Args:
        name: str, what errors call it.
        part: an object with `get_config`, a function, or None.

    Raises:
        ValueError: for anything else, lambdas, and functions within functions.
    """
    named = "<" not in getattr(part, "__qualname__", "<")
    if part is not None and not hasattr(part, "get_config") and not named:
        raise ValueError(
            f"Expected a {name} that Keras can save, a model or a registered function of a module. "
            f"Received: {name}={part!r}"
        )
