"""A small language model of characters, and the English sentences it reads."""

import csv

import keras
import numpy as np

from keras_ext.layers import AttentionMask, FeedForward, MultiHeadSelfAttention

HEAD_SIZE = 32


def read_sentences(path, known=()):
    """The sentences of a file of STS-B, each once, and none of those known."""
    with open(path, encoding="utf-8") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        sentences = dict.fromkeys(sentence for row in rows for sentence in row[5:7])
    return [sentence for sentence in sentences if sentence not in known]


def read_characters(data):
    """The characters of STS-B's sentences in file order, as ids.

    Args:
        data: `Path` of the folder of data sets.

    Returns:
        int32 arrays of the training file and of the dev file's sentences that are not in it, and
        the number of ids; 0 stands for characters that the training file has not.
    """
    train = read_sentences(data / "stsbenchmark_en" / "sts-train.csv")
    held_out = read_sentences(data / "stsbenchmark_en" / "sts-dev.csv", set(train))
    train, held_out = "\n".join(train), "\n".join(held_out)
    ids = {character: i for i, character in enumerate(sorted(set(train)), start=1)}

    def encode(text):
        return np.array([ids.get(character, 0) for character in text], "int32")

    return encode(train), encode(held_out), len(ids) + 1


def pieces(characters, starts, length):
    """Pieces of a text, and for each of their characters the one that follows."""
    places = np.asarray(starts)[:, None] + np.arange(length)
    return characters[places], characters[places + 1]


def character_model(characters, width, layers):
    """A transformer that scores the next character at each place; norms before the layers.

    Args:
        characters: int, number of ids.
        width: int, a multiple of 32, the size of a head.
        layers: int, blocks.

    Returns:
        `keras.Model`, (b, n) int to (b, n, characters) logits.
    """
    inputs = keras.Input((None,), dtype="int32")
    past = AttentionMask("lm")(inputs)
    x = keras.layers.Embedding(characters, width)(inputs)
    for _ in range(layers):
        attention = MultiHeadSelfAttention(width // HEAD_SIZE, HEAD_SIZE, rope=True)
        x = x + attention(keras.layers.LayerNormalization()(x), attention_mask=past)
        x = x + FeedForward(4 * width)(keras.layers.LayerNormalization()(x))
    x = keras.layers.LayerNormalization()(x)
    return keras.Model(inputs, keras.layers.Dense(characters)(x))
