"""Losses: a function and its class in each file."""

from keras_ext.losses.cosent import CoSENT
from keras_ext.losses.factored_global_pointer import (
    FactoredGlobalPointerCrossentropy,
    factored_global_pointer_crossentropy,
)
from keras_ext.losses.flat_nce import FlatNCE, flat_nce
from keras_ext.losses.global_pointer import GlobalPointerCrossentropy, global_pointer_crossentropy
from keras_ext.losses.info_nce import InfoNCE, info_nce
from keras_ext.losses.matryoshka import Matryoshka
from keras_ext.losses.multilabel import (
    MultilabelCategoricalCrossentropy,
    multilabel_categorical_crossentropy,
)
from keras_ext.losses.ranking import ranking_logsumexp
from keras_ext.losses.smooth_accuracy import (
    SmoothAccuracy,
    SmoothF1,
    smooth_accuracy,
    smooth_f1,
)
from keras_ext.losses.sparse_multilabel import (
    SparseMultilabelCategoricalCrossentropy,
    sparse_multilabel_categorical_crossentropy,
)

__all__ = [
    "CoSENT",
    "FactoredGlobalPointerCrossentropy",
    "FlatNCE",
    "GlobalPointerCrossentropy",
    "InfoNCE",
    "Matryoshka",
    "MultilabelCategoricalCrossentropy",
    "SmoothAccuracy",
    "SmoothF1",
    "SparseMultilabelCategoricalCrossentropy",
    "factored_global_pointer_crossentropy",
    "flat_nce",
    "global_pointer_crossentropy",
    "info_nce",
    "multilabel_categorical_crossentropy",
    "ranking_logsumexp",
    "smooth_accuracy",
    "smooth_f1",
    "sparse_multilabel_categorical_crossentropy",
]
