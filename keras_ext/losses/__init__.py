"""Losses: a function and its class in each file."""

from keras_ext.losses.factored_global_pointer import (
    FactoredGlobalPointerCrossentropy,
    factored_global_pointer_crossentropy,
)
from keras_ext.losses.global_pointer import GlobalPointerCrossentropy, global_pointer_crossentropy
from keras_ext.losses.multilabel import (
    MultilabelCategoricalCrossentropy,
    multilabel_categorical_crossentropy,
)
from keras_ext.losses.sparse_multilabel import (
    SparseMultilabelCategoricalCrossentropy,
    sparse_multilabel_categorical_crossentropy,
)

__all__ = [
    "FactoredGlobalPointerCrossentropy",
    "GlobalPointerCrossentropy",
    "MultilabelCategoricalCrossentropy",
    "SparseMultilabelCategoricalCrossentropy",
    "factored_global_pointer_crossentropy",
    "global_pointer_crossentropy",
    "multilabel_categorical_crossentropy",
    "sparse_multilabel_categorical_crossentropy",
]
