"""What the tasks add to Keras' `fit`: an optimizer, a guard, and the best weights kept."""

import math

import keras
import numpy as np

from keras_ext.optimizers import GuardedLossScale
from keras_ext.training import CompileCounter, OptimizerMonitor


def fit_and_keep(model, batches, epochs, callbacks, verbose, measure, best):
    """Trains a compiled model, and leaves the best weights in it.

    Training that is interrupted, or whose loss or weights are no longer finite, loses nothing: the
    best weights from before are put back.

    Args:
        model: a compiled `keras.Model`.
        batches: `keras.utils.PyDataset`.
        epochs: int.
        callbacks: list of Keras callbacks, or None. They see what `measure` gives, `CompileCounter`
            the batches.
        verbose: as in `keras.Model.fit`.
        measure: function without arguments, called after each epoch; returns a dict of floats for
            the logs. None: the weights after the last epoch are kept.
        best: name in that dict, of what is to be as large as possible.

    Returns:
        The Keras `History`.

    Raises:
        RuntimeError: if the loss stops being finite.
    """
    for callback in callbacks or []:
        if isinstance(callback, CompileCounter):
            batches = callback.watch(batches)
    keep = KeepBest(model, measure, best)
    optimizer = model.optimizer
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    # Averaged weights are put in place before they are measured, and taken out after it.
    swap = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if optimizer.use_ema else []
    check = keras.callbacks.LambdaCallback(on_epoch_end=keep.check)
    callbacks = [check, OptimizerMonitor(), *swap, keep, *(callbacks or [])]
    try:
        history = model.fit(
            batches, epochs=epochs, callbacks=callbacks, verbose=verbose, shuffle=False
        )
    except BaseException:  # an interruption by the user loses nothing, either
        keep.restore()
        raise
    if measure is not None:
        keep.restore()
    return history


def lengths_differ_first(batches):
    """Batches in an order that shows Keras on TensorFlow that their length varies, if it does.

    It learns from the first two which dimensions do.

    Args:
        batches: list of tuples that begin with the length.

    Returns:
        The list, in which the second has another length than the first, where one has.
    """
    for place, batch in enumerate(batches):
        if batch[0] != batches[0][0]:
            return [batches[0], batch, *batches[1:place], *batches[place + 1 :]]
    return batches


def default_optimizer(steps, learning_rate, weight_decay, ema_momentum):
    """AdamW with a warm-up over a tenth of the steps and a cosine decay to 0 over the others.

    Args:
        steps: int, optimizer steps of the whole training.
        learning_rate: float, the peak.
        weight_decay: float, not for biases, normalisation and temperatures.
        ema_momentum: float of the average of weights, or None for no average.

    Returns:
        A `keras.optimizers.AdamW`.
    """
    warmup = max(steps // 10, 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(steps - warmup, 1), warmup_target=learning_rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=weight_decay,
        clipnorm=1.0,
        use_ema=ema_momentum is not None,
        ema_momentum=0.99 if ema_momentum is None else ema_momentum,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma", "log_scale"])
    return optimizer


def guarded(optimizer, model):
    """The optimizer, in a `GuardedLossScale` where a layer of the model computes in float16.

    Keras scales the loss itself only where float16 is the policy of the model object, not that of
    its layers. Without scaling, small gradients vanish in float16.

    Args:
        optimizer: a Keras optimizer or its name. One with loss scaling, of Keras too, stays as it
            is.
        model: a `keras.Model`.

    Returns:
        A Keras optimizer.
    """
    optimizer = keras.optimizers.get(optimizer)
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    half = any(layer.compute_dtype == "float16" for layer in model._flatten_layers())
    return GuardedLossScale(optimizer) if half and not scaled else optimizer


class KeepBest(keras.callbacks.Callback):
    """Keeps the weights of the best epoch, and ends training that has gone astray.

    What `measure` gives is added to the logs, where later callbacks, the progress bar and the
    history find it. Without it the weights of the last epoch are the best.

    Args:
        trained: the `keras.Model` that is trained.
        measure: as in `fit_and_keep`.
        best: likewise.
    """

    def __init__(self, trained, measure, best):
        super().__init__()
        self.trained = trained
        self.measure = measure
        self.best = best
        self.highest, self.weights = -math.inf, trained.get_weights()

    def check(self, epoch, logs):
        """Ends training, before anything else at the end of an epoch, if it is not finite.

        Raises:
            RuntimeError: if a weight is not finite; or the loss, where no guard skipped the batch.
        """
        loss, weights = logs.get("loss", 0.0), self.trained.get_weights()
        skipped = getattr(self.trained.optimizer, "skipped_steps", None)
        if skipped is not None and keras.ops.convert_to_numpy(skipped) > 0:
            loss = 0.0  # one batch that was skipped makes the mean NaN
        if not math.isfinite(loss) or not all(np.isfinite(w).all() for w in weights):
            raise RuntimeError(
                f"Training stopped: the loss of epoch {epoch + 1} is {loss}, or weights are not "
                "finite after it. The best weights from before this epoch are restored. A lower "
                "learning rate, or float32 instead of mixed_float16, usually helps."
            )

    def on_epoch_end(self, epoch, logs=None):
        logs, weights = {} if logs is None else logs, self.trained.get_weights()
        if self.measure is None:
            self.weights = weights
            return
        measured = self.measure()
        logs.update(measured)
        score = measured.get(self.best, math.nan)
        score = -math.inf if math.isnan(score) else score
        if score >= self.highest:  # of equal ones the later has seen more
            self.highest, self.weights = score, weights

    def restore(self):
        """Puts the kept weights into the model."""
        self.trained.set_weights(self.weights)
