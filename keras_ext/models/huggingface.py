"""BERT weights in the files of Hugging Face."""

from pathlib import Path

from keras_ext.models.bert import BertEncoder
from keras_ext.models.checkpoint import NamedWeight, assign_weights
from keras_ext.models.safetensors_file import read_json, read_safetensors

CONFIG = {
    "vocab_size": "vocabulary_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "hidden_size": "hidden_dim",
    "intermediate_size": "intermediate_dim",
    "max_position_embeddings": "max_sequence_length",
    "type_vocab_size": "num_segments",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "hidden_act": "activation",
    "layer_norm_eps": "layer_norm_epsilon",
}
REQUIRED = tuple(CONFIG)[:5]
ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "swish": "silu"}
NOT_IN_ENCODER = ("embeddings.position_ids", "cls.*")


def bert_names(num_layers, with_pool=False, prefix=""):
    """The name table of BERT: our weights and their names in Hugging Face files.

    Args:
        num_layers: int, number of blocks.
        with_pool: bool, whether the pooler is part of it.
        prefix: str before the names of the encoder, such as "bert.".

    Returns:
        List of `NamedWeight`.

    Example:

    >>> bert_names(1)[0]
    NamedWeight(layer='Embedding-Token', attribute='embeddings', \
name='embeddings.word_embeddings.weight', transpose=False)
    """
    table = [
        ("Embedding-Token", "embeddings", "embeddings.word_embeddings.weight"),
        ("Embedding-Segment", "embeddings", "embeddings.token_type_embeddings.weight"),
        ("Embedding-Position", "embeddings", "embeddings.position_embeddings.weight"),
        *_norm("Embedding-Norm", "embeddings.LayerNorm"),
    ]
    for i in range(num_layers):
        block = f"encoder.layer.{i}"
        attention = f"Transformer-{i}-MultiHeadSelfAttention"
        feed_forward = f"Transformer-{i}-FeedForward"
        for part in ("query", "key", "value"):
            table += _dense(attention, f"{part}_dense.", f"{block}.attention.self.{part}")
        table += _dense(attention, "output_dense.", f"{block}.attention.output.dense")
        table += _norm(f"{attention}-Norm", f"{block}.attention.output.LayerNorm")
        table += _dense(feed_forward, "intermediate_dense.", f"{block}.intermediate.dense")
        table += _dense(feed_forward, "output_dense.", f"{block}.output.dense")
        table += _norm(f"{feed_forward}-Norm", f"{block}.output.LayerNorm")
    if with_pool:
        table += _dense("Pooler-Dense", "", "pooler.dense")
    return [NamedWeight(layer, path, prefix + name, *rest) for layer, path, name, *rest in table]


def _dense(layer, path, name):
    # torch keeps the transposed kernel.
    return [
        (layer, f"{path}kernel", f"{name}.weight", True),
        (layer, f"{path}bias", f"{name}.bias"),
    ]


def _norm(layer, name):
    return [(layer, "gamma", f"{name}.weight"), (layer, "beta", f"{name}.bias")]


def load_bert_safetensors(encoder, path, prefix=None, allow_missing=(), allow_unused=()):
    """Fills a `BertEncoder` from a safetensors file of Hugging Face.

    Strict: a tensor that is missing, left over or of another shape is an error that lists all
    of them. Allowed to be left over are the pretraining heads (`cls.*`), the constant
    `embeddings.position_ids`, and the pooler where the encoder has none; the report lists them.

    Args:
        encoder: `BertEncoder`.
        path: the file, or the folder with `model.safetensors`.
        prefix: str before the names of the encoder. None: "bert." where the file has such names.
        allow_missing: tuple of `fnmatch` patterns, more names that may lack in the file.
        allow_unused: tuple of `fnmatch` patterns, more names that may be left over.

    Returns:
        `LoadReport` of the names in the file. The old names `LayerNorm.gamma` and `.beta` are
        reported as `.weight` and `.bias`.

    Raises:
        ValueError: if the file is no safetensors file or does not fit the encoder.

    Example:

    ```python
    encoder = BertEncoder(30522, 6, 12, 384, 1536)
    report = load_bert_safetensors(encoder, "all-MiniLM-L6-v2")
    ```
    """
    values = {_modern(name): value for name, value in read_safetensors(path).items()}
    if prefix is None:
        prefix = "bert." if any(name.startswith("bert.") for name in values) else ""
    unused = [*NOT_IN_ENCODER, *(f"{prefix}{name}" for name in NOT_IN_ENCODER), *allow_unused]
    if not encoder.with_pool:
        unused.append(f"{prefix}pooler.*")
    table = bert_names(encoder.num_layers, encoder.with_pool, prefix)
    return assign_weights(encoder, table, values, tuple(allow_missing), tuple(unused))


def _modern(name):
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def bert_from_huggingface(folder, with_pool=False, dtype=None, **overrides):
    """A `BertEncoder` with the sizes and the weights of a Hugging Face folder.

    Args:
        folder: folder with `model.safetensors` and `config.json`. Without the latter, sizes are
            read off the tensors, and `num_heads` must be given: no tensor shows it.
        with_pool: bool, whether to output `pooled_output`, too. Defaults to False.
        dtype: dtype policy of all layers, or its name. Defaults to the global policy.
        **overrides: other arguments of `BertEncoder`, before those of the folder.

    Returns:
        `BertEncoder`.

    Raises:
        ValueError: if `config.json` is no JSON, lacks a field or describes another model; and as
            `load_bert_safetensors`.

    Example:

    ```python
    encoder = bert_from_huggingface("all-MiniLM-L6-v2", dtype="mixed_bfloat16")
    ```
    """
    folder = Path(folder)
    if (folder / "config.json").exists():
        config = bert_config(read_json(folder / "config.json"))
    else:
        config = _sizes(read_safetensors(folder))
        if "num_heads" not in overrides:
            raise ValueError(
                "Without config.json the number of attention heads is unknown; give `num_heads`. "
                f"Received: folder={str(folder)!r}"
            )
    encoder = BertEncoder(**{**config, **overrides}, with_pool=with_pool, dtype=dtype)
    load_bert_safetensors(encoder, folder)
    return encoder


def bert_config(config):
    """The arguments of `BertEncoder` that a Hugging Face config stands for.

    Args:
        config: dict, the content of `config.json`.

    Returns:
        Dict of keyword arguments.

    Raises:
        ValueError: if a size is missing or the config describes another model.

    Example:

    >>> sizes = dict(vocab_size=9, num_hidden_layers=1, num_attention_heads=2, hidden_size=8)
    >>> bert_config({**sizes, "intermediate_size": 16, "hidden_act": "gelu_new"})["activation"]
    'gelu_tanh'
    """
    for key, expected in (("model_type", "bert"), ("position_embedding_type", "absolute")):
        if config.get(key, expected) != expected:
            raise ValueError(
                f"Expected a config with {key}={expected!r}. Received: {config[key]!r}"
            )
    lacking = [key for key in REQUIRED if key not in config]
    if lacking:
        raise ValueError(f"The config lacks {', '.join(lacking)}. Received: keys={sorted(config)}")
    arguments = {ours: config[theirs] for theirs, ours in CONFIG.items() if theirs in config}
    if "activation" in arguments:
        arguments["activation"] = ACTIVATIONS.get(arguments["activation"], arguments["activation"])
    return arguments


def _sizes(values):
    shapes = {name.removeprefix("bert."): value.shape for name, value in values.items()}
    layers = {name.split(".")[2] for name in shapes if name.startswith("encoder.layer.")}
    try:
        return {
            "vocabulary_size": shapes["embeddings.word_embeddings.weight"][0],
            "hidden_dim": shapes["embeddings.word_embeddings.weight"][1],
            "max_sequence_length": shapes["embeddings.position_embeddings.weight"][0],
            "num_segments": shapes["embeddings.token_type_embeddings.weight"][0],
            "intermediate_dim": shapes["encoder.layer.0.intermediate.dense.bias"][0],
            "num_layers": len(layers),
        }
    except KeyError as error:
        raise ValueError(f"The weight file is not of a BERT: it lacks {error}.") from error
