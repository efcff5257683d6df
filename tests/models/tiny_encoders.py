"""A tiny encoder of each kind that other programs have, with all of its heads."""

import numpy as np

from keras_ext import models

SIZES = {"vocabulary_size": 11, "num_layers": 1, "hidden_dim": 8, "intermediate_dim": 12}
HEADS = {"num_heads": 2}
NARROW = {"embedding_dim": 4}
LENGTH = {"max_sequence_length": 7}
PRETRAINING = {"with_pool": True, "with_nsp": True, "with_mlm": True}
ENCODERS = {
    models.AlbertEncoder: {**HEADS, **NARROW, **LENGTH, **PRETRAINING},
    models.BertEncoder: {**HEADS, **NARROW, **LENGTH, **PRETRAINING},
    models.ElectraEncoder: {**HEADS, **NARROW, **LENGTH, "with_discriminator": True},
    models.GAUAlphaEncoder: {"key_size": 6},
    models.NezhaEncoder: {**HEADS, **NARROW, **PRETRAINING},
    models.RoFormerEncoder: {**HEADS, **NARROW, **PRETRAINING},
    models.RoFormerV2Encoder: {**HEADS, **NARROW},
}


def make(encoder, **arguments):
    """An encoder in which every weight is random, also those that begin as zeros or ones."""
    model = encoder(**{**SIZES, **ENCODERS[encoder], **arguments})
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


def bare(encoder, **arguments):
    """One without heads, as it begins."""
    given = {k: v for k, v in ENCODERS[encoder].items() if not k.startswith("with_")}
    return encoder(**{**SIZES, **given, **arguments})


def zeros(model):
    """The model, with nothing in its weights."""
    for weight in model.trainable_weights:
        weight.assign(np.zeros(weight.shape))
    return model


def equal(one, other):
    """Whether two models have the same weights, bit for bit."""
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(*pair) for pair in pairs)
