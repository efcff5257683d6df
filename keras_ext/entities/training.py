"""What `EntityRecognizer.fit` adds to Keras' training: records as batches, a report, the F1."""

import warnings

from keras_ext.data import plan
from keras_ext.data.report import LOSSES
from keras_ext.entities.batches import EntityBatches
from keras_ext.entities.policy import choose_policy, warn_of_nothing
from keras_ext.entities.validation import Validation
from keras_ext.tasks.compilation import Compilations, replicas_of
from keras_ext.tasks.fitting import fit_and_keep
from keras_ext.tasks.inputs import as_callbacks, as_records
from keras_ext.tasks.mean_over_examples import mean_over_examples


def warn_of_lost(report, name):
    """Warns, whatever is printed, where most entities are lost, or there are none.

    Args:
        report: `data.Report`.
        name: str, what it is of.
    """
    if 2 * report.usable >= max(report.entities, 1) or not report.windows:
        return
    lost = f"{report.lost} of {report.entities} entities are lost or given twice"
    reasons = [f"{report.counts[name]} {meaning}" for name, meaning in LOSSES.items()]
    reasons = ", ".join(reason for reason in reasons if not reason.startswith("0 "))
    warnings.warn(
        f"{name}: {lost}: {reasons}. `data.validate` shows examples. Expected offsets in "
        "characters, the end exclusive, and labels among those of the recognizer."
        if report.lost
        else f"{name}: {report.records} records without an entity. Expected some to learn from.",
        stacklevel=4,
    )


class Training:
    """What `EntityRecognizer.compile` chose, and what its `fit` does with it.

    Args:
        model: the `keras.Model`.
        loss: its loss.
        optimizer: a Keras optimizer or its name, or None for a default one.
        default: what `default_arguments` gives.
        arguments: dict of other arguments of `keras.Model.compile`.

    Raises:
        ValueError: if the arguments hold a loss.
    """

    def __init__(self, model, loss, optimizer, default, arguments):
        fixed = {"loss", "loss_weights"} & set(arguments)
        if fixed:
            raise ValueError(f"The head determines the loss. Received: {sorted(fixed)}")
        self.compilations = Compilations(optimizer, default, arguments)
        self.loss = mean_over_examples(loss)
        if optimizer is not None:
            self.compilations.get(model, self.loss)

    def fit(
        self,
        recognizer,
        records,
        validation_records,
        batch_size,
        seed,
        on_lost,
        policy,
        callbacks,
        verbose,
        **epochs,
    ):
        """`EntityRecognizer.fit`, which describes the arguments."""
        if on_lost not in ("report", "raise"):
            raise ValueError(f'Expected "report" or "raise". Received: {on_lost=}')
        callbacks = as_callbacks(callbacks)
        model, tokenizer = recognizer.model, recognizer.tokenizer
        max_length, stride = recognizer.settings["max_length"], recognizer.settings["stride"]
        records = as_records(records)
        windows, spans, report = plan(records, tokenizer, recognizer.labels, max_length, stride)
        if verbose:
            print(f"training data\n{report}")  # noqa: T201, the report is for the user
        if on_lost == "raise":
            report.raise_if_lost()
        warn_of_lost(report, "training data")
        if not windows:
            raise ValueError(
                f"There is no text to train on: all texts are empty. Received: {len(records)=}"
            )
        choice = choose_policy(recognizer, policy, report)
        if verbose:
            print(choice)  # noqa: T201
        validation = None
        if validation_records is not None:
            validation_records = as_records(validation_records, "validation_records")
            validation = Validation(recognizer, validation_records, 2 * batch_size)
            if verbose and validation.report.lost:
                print(f"validation data\n{validation.report}")  # noqa: T201
            if not verbose:
                warn_of_lost(validation.report, "validation data")
        batches = EntityBatches(
            windows,
            spans,
            batch_size,
            max_length,
            tokenizer.pad_id,
            seed=seed,
            replicas=replicas_of(model),
        )
        compilation = self.compilations.get(model, self.loss, callbacks)
        history = fit_and_keep(
            compilation, batches, callbacks, verbose, validation, "val_f1", **epochs
        )
        if validation is not None and validation.in_vain:
            warn_of_nothing(recognizer.threshold, stacklevel=4)
        return history
