"""What the tasks add to Keras' `fit`: a watch on the optimizer, and the best weights kept."""

import keras

from keras_ext.callbacks import CompileCounter, KeepFreedMemory, OptimizerMonitor
from keras_ext.callbacks.keep_best import KeepBest
from keras_ext.keras_internals import forget_resumed_epoch
from keras_ext.ops.settings import whole
from keras_ext.optimizers.nested import nested

# What an optimizer has that `OptimizerMonitor` looks at.
WATCHED = ("skipped_steps", "dynamic_scale", "flush", "position")


# Arguments of Keras' `fit` that ours have not, and why, or what they have instead.
REFUSED = {
    "class_weight": "no class belongs to an example of {data}: repeat the rare ones instead",
    "sample_weight": "every example counts once: repeat those that are to count more",
    "validation_data": "there is validation_{data}",
    "validation_split": "there is validation_{data}: take them out of the {data} beforehand",
    "validation_freq": "it is measured after every epoch",
    "validation_steps": "all of validation_{data} are measured",
    "validation_batch_size": "it follows batch_size",
    "shuffle": "the order is new in every epoch, by `seed`",
    "steps_per_epoch": "an epoch has all {data}: pass fewer",
}


def check_fit(epochs, initial_epoch, refused, data):
    """Checks arguments of a task's `fit` that are Keras'.

    Args:
        epochs: int.
        initial_epoch: int.
        refused: dict of all arguments that the `fit` does not have.
        data: what it calls its data, "records" or "examples".

    Returns:
        Epochs and initial epoch, as Python ints.

    Raises:
        ValueError: for an initial epoch out of range, and an argument that Keras has.
        TypeError: for any other argument.
    """
    epochs = whole("epochs", epochs, least=0)
    initial_epoch = whole("initial_epoch", initial_epoch, least=0)
    if initial_epoch > max(epochs - 1, 0):
        raise ValueError(
            "The initial epoch is the number of those that are done, fewer than all. Received: "
            f"{initial_epoch=}, {epochs=}"
        )
    for name, value in refused.items():
        if name not in REFUSED:
            raise TypeError(f"fit() got an unexpected keyword argument {name!r}")
        why = REFUSED[name].format(data=data)
        raise ValueError(f"`fit` has no {name}: {why}. Received: {name}={value!r:.80}")
    return epochs, initial_epoch


def fit_and_keep(compilation, batches, callbacks, verbose, measure, best, epochs, initial_epoch):
    """Trains a compiled model, and leaves the best weights in it.

    Training that is interrupted, or whose loss or weights are no longer finite, loses nothing: the
    best weights from before are put back.

    Args:
        compilation: the `Compilation` of a model.
        batches: `keras.utils.PyDataset` that counts epochs, with `forget()`, called in the end.
        callbacks: list of Keras callbacks. They see what `measure` gives, `CompileCounter` the
            batches.
        verbose: as in `keras.Model.fit`.
        measure: function without arguments, called after each epoch; returns a dict of floats for
            the logs. None: the weights after the last epoch are kept.
        best: name in that dict, of what is to be as large as possible.
        epochs: int.
        initial_epoch: int, epochs that count as done.

    Returns:
        The Keras `History`.

    Raises:
        RuntimeError: if the loss stops being finite.
    """
    model, data = compilation.model, batches
    compilation.begin(epochs * len(batches), initial_epoch * len(batches))
    for callback in callbacks:
        if isinstance(callback, CompileCounter):
            batches = callback.watch(batches)
    swaps, callbacks = _partition(callbacks, keras.callbacks.SwapEMAWeights)
    optimizers = list(nested(model.optimizer))
    watched = any(hasattr(each, name) for each in optimizers for name in WATCHED)
    if not swaps and any(each.use_ema for each in optimizers):
        # Averaged weights are put in place before they are measured, and taken out after it.
        swaps = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]
    keep = KeepBest(model, measure, best, checks=not watched, averaged=bool(swaps))
    memory = KeepFreedMemory()

    def seek(epoch, logs=None):
        # An earlier fit goes on, by `initial_epoch` or `BackupAndRestore`: with its order of batches.
        if data.epoch != epoch:
            data.epoch = epoch - 1
            data.on_epoch_end()

    check = keras.callbacks.LambdaCallback(on_epoch_begin=seek, on_epoch_end=keep.check)
    # The monitor waits for the device after each batch: only where there is something to see.
    callbacks = [check, *[OptimizerMonitor()] * watched, *swaps, keep, memory, *callbacks]
    forget_resumed_epoch(model)
    try:
        history = model.fit(
            batches,
            epochs=epochs,
            initial_epoch=initial_epoch,
            callbacks=callbacks,
            verbose=verbose,
            shuffle=False,
        )
    except BaseException:  # an interruption by the user loses nothing, either
        keep.restore()
        memory.on_train_end()
        raise
    finally:
        data.forget()
    if measure is not None:
        keep.restore()
    return history


def _partition(callbacks, kind):
    """The callbacks of a kind, and the others."""
    return [c for c in callbacks if isinstance(c, kind)], [
        c for c in callbacks if not isinstance(c, kind)
    ]
