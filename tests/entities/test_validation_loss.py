"""`val_loss` of `EntityRecognizer.fit`."""

import keras
import numpy as np
import pytest
from tasks.recognizers import join_records

from keras_ext.data import plan
from keras_ext.entities.decoding import Reading, window_batches
from keras_ext.entities.training import Validation, span_loss


def naive_loss(scores, spans):
    """Of one window: scores (labels, n, n), -1e30 where there is no span; gold `type, start, end`."""
    gold = np.zeros(scores.shape, bool)
    gold[tuple(spans.T)] = True
    of_labels = [
        np.log1p(np.exp(s[~g & (s > -1e29)]).sum()) + np.log1p(np.exp(-s[g]).sum())
        for s, g in zip(scores.astype("float64"), gold, strict=True)
    ]
    return np.mean(of_labels)


def measure(recognizer, records, batch_size):
    """What is measured after an epoch."""
    windows, spans, _ = plan(records, recognizer.tokenizer, recognizer.labels, 32, 8)
    batches = window_batches(windows, spans, batch_size, 32, recognizer.tokenizer.pad_id)
    head = recognizer.span_head
    reading = Reading(head, recognizer.labels, 0.0, "nested")
    loss = span_loss(head)
    return Validation(recognizer.model, loss, records, windows, batches, lambda: reading)()


@pytest.mark.slow
@pytest.mark.parametrize("head", ["efficient", "full"])
def test_it_is_the_mean_loss_of_the_windows(new_recognizer, records, head):
    """Of texts of several windows and lengths, the last batch shorter than the others."""
    recognizer = new_recognizer(head)
    dev = [*records[:7], join_records(records[7:12]), {"text": "", "entities": []}]
    windows, spans, _ = plan(dev, recognizer.tokenizer, recognizer.labels, 32, 8)
    losses = []
    for window, gold in zip(windows, spans, strict=True):
        ids = window.ids[None]
        inputs = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids >= 0}
        (scores,) = recognizer.span_head.dense(recognizer.model.predict_on_batch(inputs))
        losses.append(naive_loss(np.asarray(scores), gold))
    assert len(windows) > 10
    measured = measure(recognizer, dev, 4)
    assert measured["val_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.slow
def test_callbacks_watch_it(untrained, records):
    """By default, for it is what Keras' callbacks look for."""
    stop = keras.callbacks.EarlyStopping(min_delta=1e9, patience=1)
    history = untrained.fit(
        records[:8], records[:4], epochs=5, batch_size=8, verbose=0, callbacks=stop
    )
    assert len(history.history["val_loss"]) == 2


def test_without_a_token_there_is_none(new_recognizer):
    measured = measure(new_recognizer(), [{"text": " ", "entities": []}], 4)
    assert "val_loss" not in measured and measured["val_f1"] == 0.0
