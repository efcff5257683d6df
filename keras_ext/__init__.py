"""The systems of the kexue.fm blog for Keras 3.

Importing this package registers every serialisable object, so that saved models load.
"""

from keras_ext import (
    activations,
    data,
    initializers,
    layers,
    losses,
    metrics,
    models,
    ops,
    optimizers,
    tasks,
    training,
)

__version__ = "0.1.0"

__all__ = [
    "activations",
    "data",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "tasks",
    "training",
]
