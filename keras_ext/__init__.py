"""The systems of the kexue.fm blog for Keras 3.

Importing this package registers every serialisable object, so that saved models load.
"""

# First: the rooms that it re-exports are built of its parts.
from keras_ext import tasks

# isort: split
from keras_ext import (
    activations,
    bert4keras,
    callbacks,
    checkpoints,
    data,
    diffusion,
    entities,
    initializers,
    layers,
    losses,
    metrics,
    models,
    ops,
    optimizers,
    sentences,
    training,
)

__version__ = "0.1.0"

__all__ = [
    "activations",
    "bert4keras",
    "callbacks",
    "checkpoints",
    "data",
    "diffusion",
    "entities",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "sentences",
    "tasks",
    "training",
]
