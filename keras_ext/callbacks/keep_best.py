import math

import keras
from keras import ops

from keras_ext.callbacks.optimizer_monitor import not_finite
from keras_ext.optimizers.nested import outermost


class KeepBest(keras.callbacks.Callback):
    """Keeps the weights of the best epoch, and ends training that has gone astray.

    What `measure` gives is added to the logs, where later callbacks, the progress bar and the
    history find it. Without it the weights of the last epoch are the best.

    Args:
        trained: the `keras.Model` that is trained.
        measure: function without arguments, called after each epoch; returns a dict of floats for
            the logs. None: the weights after the last epoch are kept.
        best: name in that dict, of what is to be as large as possible.
        checks: bool, whether weights are checked here: an `OptimizerMonitor` does so, too.
        averaged: bool, whether the weights after an epoch are averages.
    """

    def __init__(self, trained, measure, best, checks, averaged):
        super().__init__()
        self.trained = trained
        self.measure = measure
        self.best = best
        self.checks = checks
        self.averaged = averaged
        self.highest, self.weights = -math.inf, None
        self.skipped = self._skipped_steps()

    def check(self, epoch, logs):
        """Ends training, before anything else at the end of an epoch, if it is not finite.

        Raises:
            RuntimeError: if a weight is not finite; or the loss, where no guard skipped the batch.
        """
        loss = logs.get("loss", 0.0)
        skipped = self._skipped_steps()
        if skipped > self.skipped:
            loss = 0.0  # one batch that was skipped makes the mean NaN
        self.skipped = skipped
        if not math.isfinite(loss) or (self.checks and not_finite(self.trained.weights)):
            raise RuntimeError(
                f"Training stopped: the loss of epoch {epoch + 1} is {loss}, or weights are not "
                "finite after it. The best weights from before this epoch are restored. A lower "
                "learning rate, or float32 instead of mixed_float16, usually helps."
            )

    def on_epoch_begin(self, epoch, logs=None):
        if self.weights is None:  # not before: callbacks may have loaded others
            self.weights = self.trained.get_weights()

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

    def on_train_end(self, logs=None):
        # Keras finds the averages only after the last of all epochs, not where training was stopped.
        if self.averaged:
            self.restore()

    def restore(self):
        """Puts the kept weights into the model."""
        if self.weights is not None:
            self.trained.set_weights(self.weights)

    def _skipped_steps(self):
        """How many steps the optimizer, or one inside of it, has skipped so far."""
        skipped = outermost(self.trained.optimizer, "skipped_steps")
        return 0 if skipped is None else int(ops.convert_to_numpy(skipped))
