import re

import numpy as np
import pytest

from keras_ext.models import BertEncoder, names_in


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def batch(rng):
    """Three sentences of 6 ids: whole, padded, and with a hole."""
    mask = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 0, 1, 1, 0, 1]], bool)
    return {
        "token_ids": rng.integers(0, 30, (3, 6)).astype("int32"),
        "segment_ids": rng.integers(0, 2, (3, 6)).astype("int32"),
        "padding_mask": mask,
    }


@pytest.fixture
def tiny_bert():
    """Makes a tiny BERT whose dropout is off and whose other arguments can be changed."""

    def make(**arguments):
        sizes = {
            "vocabulary_size": 30,
            "num_layers": 2,
            "num_heads": 2,
            "hidden_dim": 8,
            "intermediate_dim": 12,
            "max_sequence_length": 9,
        }
        return BertEncoder(**{**sizes, **arguments})

    return make


@pytest.fixture
def random_values(rng):
    """Makes random tensors under Hugging Face's names in the shapes that an encoder needs."""

    def make(encoder, prefix=""):
        values = {}
        for row in names_in(encoder, "huggingface"):
            shape = tuple(row.variable(encoder).shape)[:: -1 if row.transpose else 1]
            name = re.sub("^(bert|albert|electra|roformer)[.]", prefix, row.name)
            values[name] = rng.normal(size=shape, scale=0.5).astype("float32")
        return values

    return make
