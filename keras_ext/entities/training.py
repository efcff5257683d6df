"""What `EntityRecognizer.fit` adds to Keras' training: a report, a policy, the F1."""

import warnings

import numpy as np
from keras import ops

from keras_ext.data.records import trimmed_entities
from keras_ext.data.report import LOSSES
from keras_ext.entities.decoding import check_policy, window_scores
from keras_ext.metrics import score_entities
from keras_ext.tasks.mean_over_examples import mean_over_examples

POLICIES = {
    "nested": "all entities above the threshold are given",
    "flat": "of entities that overlap the best-scored one is given",
    "longest": "of entities that overlap the longest one is given",
}


def span_loss(head, loss=None):
    """The loss that a recogniser is trained with, its mean over the windows of a batch.

    Args:
        head: `EfficientHead` or `FullHead`.
        loss: `keras.losses.Loss`, its name, or a function of gold spans and scores that gives (b,).
            None: the head's own.

    Returns:
        A `keras.losses.Loss`.

    Raises:
        ValueError: for a loss that cannot be computed from these two.
    """
    if loss is None:
        return mean_over_examples(head.loss())
    mean = mean_over_examples(loss)
    spans = np.full((2, 8, 3), -1, "int32")
    shape = head.layer("float32").compute_output_shape((2, 4, 8))
    try:
        found = tuple(mean.call(spans, ops.zeros(shape)).shape)
    except Exception as error:  # each backend has its own
        found = f"{type(error).__name__}: {error}"
    if found != (2,):
        raise ValueError(
            "The loss of a recogniser compares gold spans (b, k, 3), `type, start, end` padded "
            f"with -1, with the scores of its head, here of the shape {shape}, and gives (b,), as "
            f"{type(head.loss()).__name__} does. Received: {loss=}, which gives {found!s:.200}"
        )
    return mean


def check_report(report, on_lost, verbose):
    """Shows the report of the training data, and refuses or warns of what is lost.

    Args:
        report: `data.Report`.
        on_lost: "report" or "raise".
        verbose: whether it is printed.

    Raises:
        ValueError: if there is no text, or, with "raise", a lost entity.
    """
    if verbose:
        print(f"training data\n{report}")  # noqa: T201, the report is for the user
    if on_lost == "raise":
        report.raise_if_lost()
    warn_of_lost(report, "training data", stacklevel=4)
    if not report.windows:
        raise ValueError(
            f"There is no text to train on: all texts are empty. Received: {report.records} records"
        )


def check_validation_report(report, verbose):
    """Shows the report of the validation data where entities are lost, or warns of many."""
    if verbose and report.lost:
        print(f"validation data\n{report}")  # noqa: T201
    if not verbose:
        warn_of_lost(report, "validation data", stacklevel=4)


def warn_of_lost(report, name, stacklevel):
    """Warns, whatever is printed, where most entities are lost, or there are none.

    Args:
        report: `data.Report`.
        name: str, what it is of.
        stacklevel: int, of the caller of `fit`.
    """
    if 2 * report.usable >= max(report.entities, 1) or not report.windows:
        return
    lost = f"{report.lost} of {report.entities} entities are lost or given twice"
    reasons = [f"{report.counts[name]} {meaning}" for name, meaning in LOSSES.items()]
    reasons = ", ".join(reason for reason in reasons if not reason.startswith("0 "))
    warnings.warn(
        f"{name}: {lost}: {reasons}. `data.validate` shows examples. Expected offsets in "
        "characters, the end exclusive, and labels among those of the recogniser."
        if report.lost
        else f"{name}: {report.records} records without an entity. Expected some to learn from.",
        stacklevel=stacklevel,
    )


def warn_of_nothing(threshold):
    """Warns that nothing scores above a threshold."""
    warnings.warn(
        f"No span scores above the threshold {threshold}, so nothing is predicted, and the F1 is 0. "
        "`best_threshold` of the recogniser finds the best one on validation records; where it "
        "finds none either, the model has to be trained longer.",
        stacklevel=3,
    )


def choose_policy(kept, asked, report):
    """The policy to read scores by after training on some data.

    Args:
        kept: str, the one that was chosen before; None: nobody has.
        asked: str that the user asks for now, or None.
        report: `data.Report` of the training data.

    Returns:
        The policy, and a line for the report.
    """
    overlapping = report.counts["nested"] + report.counts["crossing"]
    policy, why = kept if asked is None else check_policy(asked), "as chosen"
    if policy is None:
        policy = "flat" if report.entities and not overlapping else "nested"
        why = f"{overlapping:,} of {report.entities:,} entities overlap another"
    elif asked is None and overlapping and kept != "nested":
        warnings.warn(
            f"The recogniser keeps the policy {kept!r}, which gives no entities that "
            f'overlap; {overlapping} of the training data do. Expected fit(..., policy="nested"), '
            f"or to be told that it is meant. Received: policy=None",
            stacklevel=3,
        )
    return policy, f"policy            {policy:>9}   {POLICIES[policy]} ({why})"


class Validation:
    """Scores a model on records that were planned once, from one run of the model.

    Args:
        model: `keras.Model` of an `EntityRecognizer`.
        loss: `keras.losses.Loss` of its scores.
        records: list of records.
        windows: list of the `data.Window`s of their texts.
        batches: `Batches` of these windows; they are made once.
        reading: function without arguments that gives the `Reading` to score with.

    `in_vain` tells whether there are entities and no call predicted any.
    """

    def __init__(self, model, loss, records, windows, batches, reading):
        self.model, self.loss, self.reading = model, loss, reading
        self.texts = [record["text"] for record in records]
        self.gold = [trimmed_entities(record) for record in records]
        self.windows, self.batches = windows, list(batches.made())
        self.in_vain = any(self.gold)

    def __call__(self):
        """The figures for the logs: the F1 of all entities, and the mean loss of the windows."""
        losses = []
        scored = self._scored(losses)
        scores = score_entities(
            self.gold, self.reading().entities(self.texts, self.windows, scored)
        )
        self.in_vain = self.in_vain and not scores.micro.predicted
        measured = {
            "val_f1": scores.micro.f1,
            "val_precision": scores.micro.precision,
            "val_recall": scores.micro.recall,
            "val_nested_f1": scores.nested_only.f1,
        }
        if losses:
            measured["val_loss"] = float(np.mean(np.concatenate(losses), dtype="float64"))
        return measured

    def _scored(self, losses):
        """`window_scores` of all windows, whose losses are put into a list."""
        for indices, labels, scores in window_scores(self.model, self.windows, self.batches):
            losses.append(ops.convert_to_numpy(self.loss.call(labels, scores)))
            yield indices, labels, scores
