"""A small sentence encoder and examples to train it on."""

import keras

from keras_ext.data import Tokenizer
from keras_ext.models import BertEncoder
from keras_ext.tasks import SentenceEncoder

COLOURS = ["red", "blue", "green", "grey"]
THINGS = ["car", "tree", "house", "boat"]
TEXTS = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
# Alike where the thing is the same.
SCORED = [
    (first, second, float(first.split()[1] == second.split()[1]))
    for first in TEXTS
    for second in TEXTS
    if first < second
]
PAIRS = [(first, second) for first, second, score in SCORED if score]
TRIPLETS = [(f"red {thing}", f"blue {thing}", "grey sky") for thing in THINGS]


def make_tokenizer():
    return Tokenizer.from_characters([*TEXTS, "grey sky"], min_count=1)


def make_encoder(dtype=None, dropout=0.0, seed=0, num_layers=1, **kwargs):
    """A `SentenceEncoder` of a BERT with narrow blocks."""
    keras.utils.set_random_seed(seed)
    tokenizer = make_tokenizer()
    encoder = BertEncoder(
        tokenizer.vocabulary_size,
        num_layers=num_layers,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=32,
        dropout=dropout,
        attention_dropout=dropout,
        residual="pre",
        dtype=dtype,
    )
    return SentenceEncoder(encoder, tokenizer, **{"max_length": 32, **kwargs})
