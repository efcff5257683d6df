"""The tasks trained on one device and, see on_replicas.py, on two replicas."""

import contextlib

import keras
import numpy as np
from tasks.recognizers import make_recognizer, make_records
from tasks.sentences import PAIRS, SCORED, TRIPLETS, make_encoder

from keras_ext.losses import InfoNCE
from keras_ext.optimizers import GradientAccumulation, NonFiniteGuard

RECORDS = make_records()
EXAMPLES = {"scored": SCORED[:14], "pairs": PAIRS[:9], "triplets": TRIPLETS}


def excluding():
    """An optimizer whose weight decay would shrink what it does not leave alone."""
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=5.0)
    optimizer.exclude_from_weight_decay(var_names=["kernel", "bias"])
    return GradientAccumulation(optimizer, 1)


OPTIMIZERS = {
    "default": lambda: None,
    "name": lambda: "adam",
    "clipped": lambda: GradientAccumulation(keras.optimizers.SGD(0.1, global_clipnorm=1.0), 1),
    "excluding": excluding,
    "guarded": lambda: NonFiniteGuard(keras.optimizers.Adam(0.01)),
}


def weights_after(task, kind, optimizer, inside, batch_size, chunk_size, strategy=None):
    """Losses and weights after training, in a scope where there is a strategy."""
    arguments = {"learning_rate": 0.01} if optimizer == "default" else {}
    nothing = contextlib.nullcontext()
    with nothing if strategy is None else strategy.scope():
        model = make_recognizer() if task == "entities" else make_encoder()
    with strategy.scope() if inside and strategy is not None else nothing:
        model.compile(optimizer=OPTIMIZERS[optimizer](), **arguments)
        if task == "entities":
            history = model.fit(
                RECORDS[:21], RECORDS[:4], epochs=2, batch_size=batch_size, verbose=0
            )
        else:
            history = model.fit(
                EXAMPLES[kind],
                EXAMPLES[kind] if kind == "scored" else None,
                epochs=2,
                batch_size=batch_size,
                chunk_size=chunk_size,
                verbose=0,
            )
    return history.history["loss"], model.model.get_weights()


def compare(strategy, **arguments):
    """The largest difference of losses and weights between two replicas and one device."""
    arguments = {
        "kind": "scored",
        "optimizer": "default",
        "inside": False,
        "batch_size": 6,
        "chunk_size": None,
        **arguments,
    }
    losses, weights = weights_after(**arguments, strategy=strategy)
    expected_losses, expected = weights_after(**arguments)
    assert expected_losses[0] > 0.0
    assert np.ptp(expected_losses) > 0.0  # something was learnt
    return {
        "loss": float(np.abs(np.subtract(losses, expected_losses)).max()),
        "weights": max(float(np.abs(a - b).max()) for a, b in zip(weights, expected, strict=True)),
    }


def made_elsewhere(strategy, task):
    """What is said of a task that was made outside of the scope it is trained in."""
    model = make_recognizer() if task == "entities" else make_encoder()
    with strategy.scope():
        try:
            model.compile()
            model.fit(RECORDS[:4] if task == "entities" else SCORED[:4], verbose=0)
        except ValueError as error:
            return str(error)
    return "nothing"


def coupled(strategy, loss, reduction):
    """A loss of the whole batch, and its gradient, of two replicas against one device."""
    import tensorflow as tf

    from keras_ext import losses

    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 2, 4)).astype("float32")
    labels = np.array([0, 1, 2, 1, 3, 3], "int32")
    weights = np.array([1.0, 2.0, 1.0, 0.5, 0.0, 1.0], "float32")
    arguments = {} if reduction == "default" else {"reduction": reduction}
    loss = getattr(losses, loss)(**arguments)

    def value_and_gradient(x, y, w):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(y, x, sample_weight=w)
        return value, tape.gradient(value, x)

    def on_replica():
        start = 3 * tf.distribute.get_replica_context().replica_id_in_sync_group
        parts = (tf.constant(part)[start : start + 3] for part in (vectors, labels, weights))
        return value_and_gradient(*parts)

    values, gradients = tf.function(lambda: strategy.run(on_replica), autograph=False)()
    values, gradients = map(strategy.experimental_local_results, (values, gradients))
    value, gradient = value_and_gradient(*map(tf.constant, (vectors, labels, weights)))
    found = np.concatenate(gradients)
    return {
        "value": float(abs(sum(values) - value)),
        "gradient": float(np.abs(found - gradient).max() / np.abs(gradient).max()),
    }


def refused(strategy):
    """What is said of a loss of the whole batch that is not reduced, on two replicas."""
    import tensorflow as tf

    loss = InfoNCE(reduction=None)
    try:
        strategy.run(lambda: loss(None, tf.ones((2, 2, 3))))
    except ValueError as error:
        return str(error)
    return "nothing"
