"""What is alive after one more `fit` is what was alive after the one before."""

import collections
import gc

import keras
import pytest

from tests.tasks.sentences import SCORED, make_encoder

# Data, traced functions, weights and slots, optimizers, callbacks.
KEPT = {
    "Window",
    "FuncGraph",
    "Variable",
    "AdamW",
    "SummedGradients",
    "WarmupCosine",
    "KeepBest",
    "KeepFreedMemory",
    "LambdaCallback",
    "History",
}


def alive():
    gc.collect()
    names = collections.Counter(type(each).__name__ for each in gc.get_objects())
    return {name: names[name] for name in KEPT}


@pytest.mark.slow
@pytest.mark.parametrize("validated", [False, True])
def test_another_fit_of_a_recognizer_leaves_nothing_behind(untrained, records, validated):
    def fit():
        history = untrained.fit(
            records[:16], records[:4] if validated else None, epochs=2, batch_size=8, verbose=0
        )
        assert len(history.epoch) == 2

    fit()
    before = alive()
    assert before["KeepBest"] <= 1  # the history of Keras, not the callbacks, is kept
    for _ in range(2):
        fit()
    assert alive() == before


@pytest.mark.slow
def test_another_fit_of_a_sentence_encoder_leaves_nothing_behind():
    encoder = make_encoder()
    encoder.compile(learning_rate=0.01)
    encoder.fit(SCORED[:8], SCORED[:9], batch_size=4, verbose=0)
    before = alive()
    for _ in range(2):
        encoder.fit(SCORED[:8], SCORED[:9], batch_size=4, verbose=0)
    assert alive() == before
    assert before["AdamW"] >= 1 or keras.backend.backend() != "tensorflow"
