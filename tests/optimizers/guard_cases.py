"""Training with bad batches, on one device or, see on_replicas.py, on two replicas."""

import contextlib

import keras
import numpy as np

from keras_ext.callbacks import OptimizerMonitor

IDS = np.random.default_rng(1).integers(0, 7, (1000, 3))
TARGETS = np.random.default_rng(2).normal(size=(1000, 1)).astype("float32")


def new_model(optimizer, jit_compile="auto", policy=None):
    """A model with an embedding, whose gradient is sparse, a normalisation, kernels, biases."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((3,), dtype="int32"),
        keras.layers.Embedding(7, 2, name="table"),
        keras.layers.Flatten(),
        keras.layers.LayerNormalization(name="norm"),
        keras.layers.Dense(1, name="dense", dtype=policy),
    ]
    model = keras.Sequential(layers)
    model.compile(loss="mse", optimizer=optimizer, jit_compile=jit_compile)
    return model


def fit(model, steps, callbacks=()):
    """Trains an epoch on batches of two rows, the first one for the first replica.

    Args:
        model: of `new_model`.
        steps: list of (index of the batch, row, bad target), the last two None in a good batch.
        callbacks: list of callbacks.

    Returns:
        The logs of the epoch.
    """
    rows = np.concatenate([[2 * index, 2 * index + 1] for index, *_ in steps])
    targets = TARGETS[rows]
    for i, (_, row, bad) in enumerate(steps):
        if row is not None:
            targets[2 * i + row] = bad
    history = model.fit(
        IDS[rows], targets, batch_size=2, shuffle=False, verbose=0, callbacks=list(callbacks)
    )
    return {name: values[-1] for name, values in history.history.items()}


def state(model):
    """Weights, slots of the innermost optimizer, and what the outermost counts, as lists."""
    inner = model.optimizer
    while hasattr(inner, "inner_optimizer"):
        inner = inner.inner_optimizer
    names = ("skipped_steps", "consecutive_skips", "dynamic_scale")
    own = {n: getattr(model.optimizer, n) for n in names if hasattr(model.optimizer, n)}
    values = {"weights": model.weights, "slots": inner.variables, "iterations": inner.iterations}
    return keras.tree.map_structure(
        lambda variable: keras.ops.convert_to_numpy(variable).tolist(), {**values, **own}
    )


def scope(strategy):
    return strategy.scope() if strategy else contextlib.nullcontext()


def trained(strategy, optimizer, steps, save_after=None, path=None, **arguments):
    """The state after training with an optimizer, given by its config, and the last logs.

    With `save_after`, the model is saved after so many steps, and a loaded one goes on.
    """
    with scope(strategy):
        model = new_model(keras.saving.deserialize_keras_object(optimizer), **arguments)
    if save_after is not None:
        fit(model, steps[:save_after])
        model.save(path)
        with scope(strategy):
            model = keras.saving.load_model(path)
        steps = steps[save_after:]
    logs = fit(model, steps, [OptimizerMonitor(max_consecutive=None)])
    return {**state(model), "logs": logs}
