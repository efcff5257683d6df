"""An ALBERT in plain NumPy, float64, one sentence and one head at a time."""

import numpy as np

from tests.models.numpy_transformer import attention, norm

LAYER = "encoder.albert_layer_groups.0.albert_layers.0"


def relu(x):
    return np.maximum(x, 0)


def forward(values, heads, layers, token_ids, segment_ids, mask, epsilon, activation):
    """Hidden states of one sentence; `values` holds the weights under Hugging Face's names."""
    values = {name: np.asarray(value, "float64") for name, value in values.items()}

    def dense(x, name):
        return x @ values[f"{name}.weight"].T + values[f"{name}.bias"]

    def normed(x, name):
        return norm(x, values[f"{name}.weight"], values[f"{name}.bias"], epsilon)

    x = values["embeddings.word_embeddings.weight"][token_ids]
    x = x + values["embeddings.token_type_embeddings.weight"][segment_ids]
    x = x + values["embeddings.position_embeddings.weight"][: len(x)]
    x = dense(normed(x, "embeddings.LayerNorm"), "encoder.embedding_hidden_mapping_in")
    for _ in range(layers):
        parts = [dense(x, f"{LAYER}.attention.{part}") for part in ("query", "key", "value")]
        parts = [np.split(part, heads, axis=-1) for part in parts]
        mixed = [attention(*head, mask, rope=None) for head in zip(*parts, strict=True)]
        mixed = dense(np.concatenate(mixed, -1), f"{LAYER}.attention.dense")
        x = normed(x + mixed, f"{LAYER}.attention.LayerNorm")
        inner = activation(dense(x, f"{LAYER}.ffn"))
        x = normed(x + dense(inner, f"{LAYER}.ffn_output"), f"{LAYER}.full_layer_layer_norm")
    return x
