"""What `EntityRecognizer.fit` measures after each epoch."""

import numpy as np
from keras import ops

from keras_ext.data import plan
from keras_ext.data.records import trimmed_entities
from keras_ext.entities.batches import EntityBatches
from keras_ext.entities.prediction import batch_scores, entities_of, label_thresholds
from keras_ext.metrics import score_entities


class Validation:
    """Scores a recogniser on records, tokenised once, from one run of the model.

    Args:
        recognizer: `EntityRecognizer`.
        records: list of records.
        batch_size: int, windows in a batch.

    `report` is the `data.Report` of the records; `in_vain` tells whether there are entities and no
    call predicted any.
    """

    def __init__(self, recognizer, records, batch_size):
        self.recognizer = recognizer
        self.texts = [record["text"] for record in records]
        self.gold = [trimmed_entities(record) for record in records]
        tokenizer, max_length = recognizer.tokenizer, recognizer.settings["max_length"]
        self.windows, spans, self.report = plan(
            records, tokenizer, recognizer.labels, max_length, recognizer.settings["stride"]
        )
        self.batches = EntityBatches(self.windows, spans, batch_size, max_length, tokenizer.pad_id)
        self.loss = recognizer.span_head.loss()
        self.in_vain = any(self.gold)

    def __call__(self):
        """The figures for the logs: the F1 of all entities, and the mean loss of the windows."""
        recognizer = self.recognizer
        thresholds = label_thresholds(recognizer.threshold, recognizer.labels)
        found, losses = [None] * len(self.windows), []
        for indices, labels, scores in batch_scores(recognizer, self.batches):
            losses.append(ops.convert_to_numpy(self.loss.call(labels, scores)))
            decoded = recognizer.span_head.decode(scores, thresholds)
            for index, spans in zip(indices, decoded, strict=True):
                found[index] = spans
        predicted = entities_of(
            recognizer.labels, self.texts, self.windows, found, recognizer.policy
        )
        scores = score_entities(self.gold, predicted)
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
