"""What a model that is trained and sampled does before and after Keras' `fit`."""

import contextlib

import keras
from keras import ops

from keras_ext.diffusion.kept_samplers import averaged


def build_optimizer(model):
    """Makes the slots of a model's optimizer, if it has none.

    Else Keras makes them while it traces, and traces again.

    Args:
        model: `keras.Model` that has its weights.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("adam")
    >>> build_optimizer(model)
    >>> model.optimizer.built
    True
    """
    if not model.compiled or model.optimizer.built:
        return
    strategy = getattr(model, "distribute_strategy", None)  # TensorFlow's
    with strategy.scope() if strategy else contextlib.nullcontext():
        model.optimizer.build(model.trainable_variables)


def separate_averages(model):
    """Gives the averages of the weights memory of their own, on JAX.

    Where `fit` ends Keras has made the averages the weights: one array in two places, which the next
    evaluation would delete.

    Args:
        model: `keras.Model`, compiled.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.Adam(use_ema=True))
    >>> separate_averages(model)
    """
    if keras.config.backend() == "jax":
        for _, average in averaged(model.optimizer):
            average.assign(ops.copy(average))
