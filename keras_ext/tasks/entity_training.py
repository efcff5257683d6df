"""What `EntityRecognizer.fit` adds to Keras' training: an optimizer and callbacks."""

import math

import keras

from keras_ext.data import check_records, plan
from keras_ext.tasks.entity_batches import EntityBatches


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
            optimizer = default_optimizer(epochs * len(batches), **self.default)
            model.compile(optimizer=optimizer, **self.arguments)
        ours = [StopOnNonFinite()]
        if validation_records is not None:
            validation_records = check_records(validation_records, "validation_records")
            ours += BestEpoch.callbacks(recognizer, validation_records, 2 * batch_size)
        callbacks = [*ours, *(callbacks or [])]
        return model.fit(
            batches, epochs=epochs, callbacks=callbacks, verbose=verbose, shuffle=False
        )


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


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends training with an error when the loss of an epoch is NaN or infinite.

    The weights of the last epoch with a finite loss are restored first, so nothing is lost.
    """

    def on_train_begin(self, logs=None):
        self.weights = self.model.get_weights()

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            self.model.set_weights(self.weights)
            raise RuntimeError(
                f"Training stopped: the loss of epoch {epoch + 1} is {loss}. The weights from "
                "before this epoch are restored. A lower learning rate, or float32 instead of "
                "mixed_float16, usually helps."
            )
        self.weights = self.model.get_weights()


class BestEpoch(keras.callbacks.Callback):
    """Measures F1 on validation records after each epoch and keeps the best weights.

    Adds `val_f1`, `val_precision`, `val_recall` and `val_nested_f1` to the logs, where callbacks
    that come later, the progress bar and the history find them.

    Args:
        recognizer: the `EntityRecognizer` that is trained.
        records: list of records.
        batch_size: int, windows in a batch.
    """

    def __init__(self, recognizer, records, batch_size):
        super().__init__()
        self.recognizer = recognizer
        self.records = records
        self.batch_size = batch_size

    @classmethod
    def callbacks(cls, recognizer, records, batch_size):
        """The callback, after Keras' own that puts averaged weights in place if there are any."""
        optimizer = recognizer.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        swap = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if optimizer.use_ema else []
        return [*swap, cls(recognizer, records, batch_size)]

    def on_train_begin(self, logs=None):
        self.best, self.weights = -1.0, None

    def on_epoch_end(self, epoch, logs=None):
        scores = self.recognizer.evaluate(self.records, batch_size=self.batch_size)
        if logs is not None:
            logs["val_f1"] = scores.micro.f1
            logs["val_precision"] = scores.micro.precision
            logs["val_recall"] = scores.micro.recall
            logs["val_nested_f1"] = scores.nested_only.f1
        if scores.micro.f1 > self.best:
            self.best, self.weights = scores.micro.f1, self.model.get_weights()

    def on_train_end(self, logs=None):
        if self.weights is not None:
            self.model.set_weights(self.weights)
