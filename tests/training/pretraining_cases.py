"""What tests of `SelfPretrainer` share, some of it in a process with two replicas."""

import contextlib

import keras
import numpy as np

from keras_ext.models import RoFormerEncoder
from keras_ext.training import SelfPretrainer

SIZE = 12
SMALL = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 24, "dropout": 0.0}


def sequences(rows=24, length=10, seed=0):
    """Ids that count upwards from anywhere, of several lengths, padded with 0."""
    rng = np.random.default_rng(seed)
    place = np.arange(length)
    ids = 1 + (rng.integers(0, 10, (rows, 1)) + place) % 10
    return np.where(place < rng.integers(length // 2, length + 1, (rows, 1)), ids, 0)


def encoder_of(**arguments):
    keras.utils.set_random_seed(0)
    return RoFormerEncoder(SIZE, **{**SMALL, "attention_dropout": 0.0, **arguments})


def trained_causally(strategy=None):
    """Loss, accuracy and weights after some steps."""
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        model = SelfPretrainer(encoder_of(application="lm"), SIZE, objective="causal")
        model.compile(keras.optimizers.SGD(0.1))
    history = model.fit(sequences(), batch_size=12, epochs=2, shuffle=False, verbose=0).history
    return history, model.get_weights()


def compare(strategy):
    """The largest differences between two replicas and one device."""
    (history, weights), (other, others) = trained_causally(strategy), trained_causally()
    return {
        "logs": max(abs(a - b) for name in history for a, b in zip(history[name], other[name])),  # noqa: B905
        "weights": max(float(np.abs(a - b).max()) for a, b in zip(weights, others, strict=True)),
    }
