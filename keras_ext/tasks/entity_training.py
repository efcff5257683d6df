"""What `EntityRecognizer.fit` adds to Keras' training: an optimizer and callbacks."""

import math

import keras
import numpy as np

from keras_ext.data import check_records, plan, validate
from keras_ext.optimizers import GuardedLossScale
from keras_ext.tasks.entity_batches import EntityBatches
from keras_ext.training import CompileCounter, OptimizerMonitor


class Training:
    """What `EntityRecognizer.compile` chose, and what its `fit` does with it.

    Args:
        model: the `keras.Model`.
        loss: its loss.
        optimizer: a Keras optimizer or its name, or None for a new default one in each `fit`.
        default: dict of the arguments of `default_optimizer`, save the steps.
        arguments: dict of other arguments of `keras.Model.compile`.

    Raises:
        ValueError: if the arguments hold a loss.
    """

    def __init__(self, model, loss, optimizer, default, arguments):
        fixed = {"loss", "loss_weights"} & set(arguments)
        if fixed:
            raise ValueError(f"The head determines the loss. Received: {sorted(fixed)}")
        self.default = default if optimizer is None else None
        self.arguments = {"loss": loss, **arguments}
        if optimizer is not None:
            self.compile(model, optimizer)

    def compile(self, model, optimizer):
        """Compiles the model with an optimizer."""
        if self.arguments.get("auto_scale_loss", True):
            optimizer = guarded(optimizer, model)
        model.compile(optimizer=optimizer, **self.arguments)

    def fit(
        self,
        recognizer,
        records,
        validation_records,
        epochs,
        batch_size,
        callbacks,
        verbose,
        seed,
        on_lost,
    ):
        """`EntityRecognizer.fit`, which describes the arguments."""
        if on_lost not in ("report", "raise"):
            raise ValueError(f'Expected "report" or "raise". Received: {on_lost=}')
        model, tokenizer = recognizer.model, recognizer.tokenizer
        max_length, stride = recognizer.settings["max_length"], recognizer.settings["stride"]
        records = check_records(records)
        windows, spans, report = plan(records, tokenizer, recognizer.labels, max_length, stride)
        if verbose:
            print(f"training data\n{report}")  # noqa: T201, the report is for the user
        if on_lost == "raise":
            report.raise_if_lost()
        if not windows:
            raise ValueError(
                f"There is no text to train on: all texts are empty. Received: {len(records)=}"
            )
        batches = EntityBatches(windows, spans, batch_size, max_length, tokenizer.pad_id, seed=seed)
        if self.default is not None:
            self.compile(model, default_optimizer(epochs * len(batches), **self.default))
        for callback in callbacks or []:
            if isinstance(callback, CompileCounter):
                batches = callback.watch(batches)
        if validation_records is not None:
            check_records(validation_records, "validation_records")
            report = validate(validation_records, tokenizer, recognizer.labels, max_length, stride)
            if verbose and report.lost:
                print(f"validation data\n{report}")  # noqa: T201
        keep = KeepBest(recognizer, validation_records, 2 * batch_size)
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
        if validation_records is not None:
            keep.restore()
        return history


def default_optimizer(steps, learning_rate, weight_decay, ema_momentum):
    """AdamW with a warm-up over a tenth of the steps and a cosine decay to 0 over the others.

    Args:
        steps: int, optimizer steps of the whole training.
        learning_rate: float, the peak.
        weight_decay: float, not for biases and normalisation.
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
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
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

    With validation records it adds `val_f1`, `val_precision`, `val_recall` and `val_nested_f1` to
    the logs, where later callbacks, the progress bar and the history find them, and keeps the
    weights with the best F1; without, those of the last epoch.

    Args:
        recognizer: the `EntityRecognizer` that is trained.
        records: list of records, or None.
        batch_size: int, windows in a batch.
    """

    def __init__(self, recognizer, records, batch_size):
        super().__init__()
        self.recognizer = recognizer
        self.records = records
        self.batch_size = batch_size
        self.best, self.weights = -1.0, recognizer.model.get_weights()

    def check(self, epoch, logs):
        """Ends training, before anything else at the end of an epoch, if it is not finite.

        Raises:
            RuntimeError: if a weight is not finite; or the loss, where no guard skipped the batch.
        """
        loss, weights = logs.get("loss", 0.0), self.model.get_weights()
        skipped = getattr(self.model.optimizer, "skipped_steps", None)
        if skipped is not None and keras.ops.convert_to_numpy(skipped) > 0:
            loss = 0.0  # one batch that was skipped makes the mean NaN
        if not math.isfinite(loss) or not all(np.isfinite(w).all() for w in weights):
            raise RuntimeError(
                f"Training stopped: the loss of epoch {epoch + 1} is {loss}, or weights are not "
                "finite after it. The best weights from before this epoch are restored. A lower "
                "learning rate, or float32 instead of mixed_float16, usually helps."
            )

    def on_epoch_end(self, epoch, logs=None):
        logs, weights = {} if logs is None else logs, self.model.get_weights()
        if self.records is None:
            self.weights = weights
            return
        scores = self.recognizer.evaluate(self.records, batch_size=self.batch_size)
        logs["val_f1"] = scores.micro.f1
        logs["val_precision"] = scores.micro.precision
        logs["val_recall"] = scores.micro.recall
        logs["val_nested_f1"] = scores.nested_only.f1
        if scores.micro.f1 >= self.best:  # of equal ones the later has seen more
            self.best, self.weights = scores.micro.f1, weights

    def restore(self):
        """Puts the kept weights into the model."""
        self.recognizer.model.set_weights(self.weights)
