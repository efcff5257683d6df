"""What `EntityRecognizer.fit` adds to Keras' training: records as batches, a report, the F1."""

import warnings

from keras_ext.data import check_records, plan, validate
from keras_ext.data.report import LOSSES
from keras_ext.metrics import score_entities
from keras_ext.tasks.compilation import Compilations, replicas_of
from keras_ext.tasks.entity_batches import EntityBatches
from keras_ext.tasks.entity_prediction import predict_entities, windows_of
from keras_ext.tasks.fitting import fit_and_keep
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
        warn_of_lost(report, "training data")
        if not windows:
            raise ValueError(
                f"There is no text to train on: all texts are empty. Received: {len(records)=}"
            )
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
        compilation.begin(epochs * len(batches))
        if validation_records is not None:
            validation_records = check_records(validation_records, "validation_records")
            texts = [record["text"] for record in validation_records]
            gold = [record["entities"] for record in validation_records]
            text_windows = windows_of(recognizer, texts)
            report = validate(validation_records, tokenizer, recognizer.labels, max_length, stride)
            if verbose and report.lost:
                print(f"validation data\n{report}")  # noqa: T201
            if not verbose:
                warn_of_lost(report, "validation data")

        def measure():
            arguments = {"threshold": 0.0, "policy": "nested", "batch_size": 2 * batch_size}
            predicted = predict_entities(recognizer, texts, **arguments, windows=text_windows)
            scores = score_entities(gold, predicted)
            return {
                "val_f1": scores.micro.f1,
                "val_precision": scores.micro.precision,
                "val_recall": scores.micro.recall,
                "val_nested_f1": scores.nested_only.f1,
            }

        measured = None if validation_records is None else measure
        return fit_and_keep(model, batches, epochs, callbacks, verbose, measured, "val_f1")
