import warnings

import keras
from keras import ops

from keras_ext.keras_internals import steps_taken
from keras_ext.optimizers.nested import nested, outermost


class OptimizerMonitor(keras.callbacks.Callback):
    """Shows what an optimizer skips, and stops training that is beyond help.

    - After each batch and each epoch `skipped_steps`, the steps skipped so far, and `loss_scale`
      are written into the logs: the progress bar, the history and later callbacks see them. A
      warning tells, once each, of a scale that has fallen below 1, and of one that is 0.
    - Keras' LossScaleOptimizer does not count what it skips. A warning tells, once, that it has
      skipped `max_consecutive` batches in a row, or 50.
    - After `max_consecutive` skipped steps in a row training stops with an error.
    - It stops, too, if weights are not finite. Those that no gradient trains, such as the moving
      statistics of a BatchNormalization, which no optimizer can protect, are checked whenever a
      step was skipped; all weights at the end of each epoch.
    - At the end of each epoch, and before a validation in `fit`, the gradients that a
      `keras_ext.optimizers.GradientAccumulation` still holds are applied.
    - What a `keras_ext.optimizers.Tiger` holds at the end of an epoch goes into the next one. The
      logs say how many micro-batches that are, `pending_steps`, and a warning, if some are left at
      the end of training.

    It finds the optimizers that do so wherever they stand around each other, and does what there
    is to do: for any optimizer, the check of the weights. It looks at the optimizer after each
    batch, and so waits for the device.

    Put it before `keras.callbacks.SwapEMAWeights` in the list of callbacks, which puts other
    weights into the model at the end of an epoch: none may be updated then. And before all that
    read its logs or save weights.

    Args:
        max_consecutive: int of at least 1, or None to go on for ever. A loss scale may take 40
            steps to find its value.

    Raises:
        ValueError: if `max_consecutive` is out of its range.

    Example:

    >>> import keras_ext
    >>> x = np.ones((32, 8))
    >>> x[0] = np.nan
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    >>> model.compile(keras_ext.optimizers.NonFiniteGuard("adam"), "mse")
    >>> monitor = OptimizerMonitor()
    >>> history = model.fit(x, np.ones((32, 1)), batch_size=8, callbacks=[monitor], verbose=0)
    >>> history.history["skipped_steps"]
    [1]
    """

    def __init__(self, max_consecutive=50):
        super().__init__()
        if max_consecutive is not None and max_consecutive < 1:
            raise ValueError(
                f"Expected max_consecutive of at least 1, or None. Received: {max_consecutive=}"
            )
        self.max_consecutive = max_consecutive
        self._fitting = False
        self._warned = set()

    def on_train_begin(self, logs=None):
        self._fitting = True
        self._seen = self._state("skipped_steps")
        self._first_scale = self._state("dynamic_scale", "initial_scale")
        self._progress, self._still = None, 0

    def on_train_batch_end(self, batch, logs=None):
        skipped = self._write(logs)
        self._watch_keras_scale()
        if skipped == self._seen:
            return
        self._seen = skipped
        self._check_weights(self.model.non_trainable_weights)
        streak = self._state("consecutive_skips")
        if self.max_consecutive is not None and streak >= self.max_consecutive:
            scale = self._state("dynamic_scale")
            raise RuntimeError(
                f"Training stopped: {streak} steps in a row were skipped, {skipped} in all, because "
                "their gradients or the learning rate were not finite. "
                + ("" if scale is None else f"The loss scale is {scale}. ")
                + "Expected data and a loss that are finite: look at the last batches. If they are, "
                "the model overflows: lower the learning rate, clip gradients, or use float32 or "
                f"bfloat16. Received: max_consecutive={self.max_consecutive}"
            )

    def on_test_begin(self, logs=None):
        if self._fitting:  # so that what is validated is what is saved
            self._flush()

    def on_epoch_end(self, epoch, logs=None):
        self._flush()
        self._write(logs)
        pending = self._pending()
        if pending is not None and logs is not None:
            logs["pending_steps"] = pending
        self._check_weights(self.model.weights)

    def on_train_end(self, logs=None):
        self._fitting = False
        pending = self._pending()
        if pending:
            warnings.warn(
                f"{pending} micro-batches are left at the end of training, too few for an update. "
                "They are not applied. The optimizer keeps them for the next `fit`, and is saved "
                "with them.",
                stacklevel=2,
            )

    def _write(self, logs):
        """Writes what there is into the logs, and gives back the steps skipped so far."""
        skipped = self._state("skipped_steps")
        scale = self._state("dynamic_scale")
        entries = {"skipped_steps": skipped, "loss_scale": scale}
        if scale == 0.0:
            self._warn_once(
                "zero",
                "The loss scale is 0: nothing is learnt from here on, for gradients are multiplied "
                "and divided by it. Too many batches were bad in a row. Expected weights from "
                "before, and GuardedLossScale, whose scale has a floor, around the optimizer.",
            )
        elif scale is not None and self._fitting and scale < min(1.0, self._first_scale):
            self._warn_once(
                "small",
                f"The loss scale has fallen to {scale}"
                + (f", after {skipped} skipped steps" if skipped else "")
                + ": small gradients vanish in float16. If some batches are bad in themselves, "
                "mend them, or give GuardedLossScale min_scale=1.0; if the loss is huge, make it a "
                "mean.",
            )
        if logs is not None:
            logs.update({name: value for name, value in entries.items() if value is not None})
        return skipped

    def _warn_once(self, kind, message):
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(message, stacklevel=2)

    def _watch_keras_scale(self):
        """Warns where a scale without counters keeps all batches from the optimizer inside."""
        scaler = self.model.optimizer
        if hasattr(scaler, "skipped_steps") or not hasattr(scaler, "dynamic_scale"):
            return
        counters = [
            int(ops.convert_to_numpy(counter))
            for optimizer in nested(scaler)
            for counter in (steps_taken(optimizer), *_windows(optimizer))
        ]
        self._still = self._still + 1 if counters == self._progress else 0
        self._progress = counters
        if self._still >= (self.max_consecutive or 50):
            self._warn_once(
                "still",
                f"The weights have not moved for {self._still} batches: Keras' LossScaleOptimizer "
                f"skipped them, as their gradients were not finite. The loss scale is "
                f"{self._state('dynamic_scale')}. Expected data and a loss that are finite. "
                "GuardedLossScale, in its place, counts what it skips and has a floor.",
            )

    def _state(self, *names):
        """The value of the outermost optimizer that has such a slot, or None."""
        found = outermost(self.model.optimizer, *names)
        return None if found is None else ops.convert_to_numpy(found).item()

    def _pending(self):
        """The micro-batches that a Tiger holds, or None if there is none that accumulates."""
        positions = [getattr(each, "position", None) for each in nested(self.model.optimizer)]
        positions = [int(ops.convert_to_numpy(p)) for p in positions if p is not None]
        return max(positions, default=None)

    def _flush(self):
        for optimizer in nested(self.model.optimizer):
            if hasattr(optimizer, "flush"):
                optimizer.flush()

    def _check_weights(self, weights):
        bad = not_finite(weights)
        if bad:
            raise RuntimeError(
                "Training stopped: weights are not finite, and training cannot mend them. Those "
                "that no gradient trains are changed in the forward pass, by inputs that are not "
                "finite: check the data. Others need a guard around the optimizer, a lower "
                "learning rate or clipped gradients. Load weights from before. "
                f"Received: {len(bad)} such weights, {bad[:5]}"
            )


def _windows(optimizer):
    """The counter of micro-steps of an optimizer that accumulates, if it does."""
    counters = (getattr(optimizer, name, None) for name in ("position", "pending_steps"))
    return [counter for counter in counters if counter is not None]


def not_finite(weights):
    """The paths of the weights of floats that are NaN or infinite somewhere; looked at where they are."""
    floats = [weight for weight in weights if "float" in weight.dtype]
    finite = [ops.all(ops.isfinite(weight)) for weight in floats]
    finite = ops.convert_to_numpy(ops.stack(finite)) if finite else []
    return [weight.path for weight, good in zip(floats, finite, strict=True) if not good]
