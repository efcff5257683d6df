"""A BERT and a RoFormer in plain NumPy, float64, one sentence and one head at a time."""

import math

import numpy as np


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def norm(x, gain, offset, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * gain + offset


def turn(x):
    """Rotary embedding as a product of complex numbers."""
    angles = np.arange(len(x))[:, None] * 10000.0 ** -(np.arange(0, x.shape[1], 2) / x.shape[1])
    turned = (x[:, ::2] + 1j * x[:, 1::2]) * np.exp(1j * angles)
    return np.stack([turned.real, turned.imag], -1).reshape(x.shape)


def turn_halves(x):
    """Rotary embedding of other programs: the channels of a pair lie in different halves."""
    first, second = np.split(x, 2, axis=-1)
    size = first.shape[1]
    angles = np.arange(len(x))[:, None] * 10000.0 ** -(np.arange(size) / size)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def attention(query, key, value, mask, rope):
    if rope:
        query, key = rope(query), rope(key)
    scores = np.exp(query @ key[mask].T / math.sqrt(query.shape[1]))
    return scores / scores.sum(-1, keepdims=True) @ value[mask]


def forward(values, heads, token_ids, segment_ids, mask, epsilon, activation=gelu, rope=None):
    """Hidden states of one sentence; `values` holds the weights under Hugging Face's names.

    `rope` turns queries and keys, in the place of a table of positions.
    """
    values = {name: np.asarray(value, "float64") for name, value in values.items()}

    def dense(x, name):
        return x @ values[f"{name}.weight"].T + values[f"{name}.bias"]

    def normed(x, name):
        return norm(x, values[f"{name}.weight"], values[f"{name}.bias"], epsilon)

    x = values["embeddings.word_embeddings.weight"][token_ids]
    x = x + values["embeddings.token_type_embeddings.weight"][segment_ids]
    if not rope:
        x = x + values["embeddings.position_embeddings.weight"][: len(x)]
    x = normed(x, "embeddings.LayerNorm")
    layer = 0
    while f"encoder.layer.{layer}.output.dense.weight" in values:
        block = f"encoder.layer.{layer}"
        parts = [dense(x, f"{block}.attention.self.{part}") for part in ("query", "key", "value")]
        parts = [np.split(part, heads, axis=-1) for part in parts]
        mixed = [attention(*head, mask, rope) for head in zip(*parts, strict=True)]
        mixed = dense(np.concatenate(mixed, -1), f"{block}.attention.output.dense")
        x = normed(x + mixed, f"{block}.attention.output.LayerNorm")
        inner = activation(dense(x, f"{block}.intermediate.dense"))
        x = normed(x + dense(inner, f"{block}.output.dense"), f"{block}.output.LayerNorm")
        layer += 1
    return x


def pool(values, hidden):
    return np.tanh(hidden[0] @ values["pooler.dense.weight"].T + values["pooler.dense.bias"])
