"""`val_loss` of `EntityRecognizer.fit`."""

import keras
import numpy as np
import pytest
from tasks.recognizers import join_records

from keras_ext.data import plan
from keras_ext.tasks.entity_batches import EntityBatches


@pytest.mark.parametrize("head", ["efficient", "full"])
def test_it_is_the_mean_loss_of_the_windows(new_recognizer, records, head):
    """As Keras finds it, batch by batch, on validation texts of several windows and lengths."""
    recognizer = new_recognizer(head)
    recognizer.compile(learning_rate=0.01)
    dev = [*records[:7], join_records(records[7:12]), {"text": "", "entities": []}]
    history = recognizer.fit(records, dev, epochs=2, batch_size=8, verbose=0)
    losses = history.history["val_loss"]
    best = int(np.argmax(np.array(history.history["val_f1"])[::-1]))
    arguments = recognizer.tokenizer, recognizer.labels, 32, 8
    windows, spans, _ = plan(dev, *arguments)
    singly = EntityBatches(windows, spans, 1, 32, recognizer.tokenizer.pad_id)
    expected = np.mean([recognizer.model.test_on_batch(*singly[i]) for i in range(len(singly))])
    assert losses[::-1][best] == pytest.approx(expected, rel=1e-5)
    assert len(windows) > 10


def test_callbacks_watch_it(new_recognizer, records):
    """By default, for it is what Keras' callbacks look for."""
    recognizer = new_recognizer()
    recognizer.compile(learning_rate=0.01)
    stop = keras.callbacks.EarlyStopping(min_delta=1e9, patience=1)
    history = recognizer.fit(
        records[:8], records[:4], epochs=5, batch_size=8, verbose=0, callbacks=stop
    )
    assert len(history.history["val_loss"]) == 2


def test_without_a_token_there_is_none(new_recognizer, records):
    recognizer = new_recognizer()
    recognizer.compile(learning_rate=0.01)
    nothing = [{"text": " ", "entities": []}]
    history = recognizer.fit(records[:8], nothing, epochs=1, batch_size=8, verbose=0)
    assert "val_loss" not in history.history and history.history["val_f1"] == [0.0]
