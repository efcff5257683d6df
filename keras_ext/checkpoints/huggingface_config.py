"""The arguments of our encoders and the `config.json` of Hugging Face, as data, both ways."""

from keras_ext import activations
from keras_ext.files.json_fields import check_field
from keras_ext.models.albert import AlbertEncoder
from keras_ext.models.bert import BertEncoder
from keras_ext.models.electra import ElectraEncoder
from keras_ext.models.roformer import RoFormerEncoder

ENCODERS = {
    "bert": BertEncoder,
    "albert": AlbertEncoder,
    "electra": ElectraEncoder,
    "roformer": RoFormerEncoder,
}
SIZES = {
    "vocab_size": "vocabulary_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "hidden_size": "hidden_dim",
    "intermediate_size": "intermediate_dim",
}
POSITIONS = {"max_position_embeddings": "max_sequence_length"}
WIDTH = {"embedding_size": "embedding_dim"}
OTHERS = {
    "type_vocab_size": "num_segments",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "hidden_act": "activation",
    "layer_norm_eps": "layer_norm_epsilon",
}
FIELDS = {
    "bert": {**SIZES, **POSITIONS, **OTHERS},
    "albert": {**SIZES, **WIDTH, **POSITIONS, **OTHERS},
    "electra": {**SIZES, **WIDTH, **POSITIONS, **OTHERS},
    "roformer": {**SIZES, **WIDTH, **OTHERS},  # rotary positions have no end
}
# What Hugging Face takes for a field that a config lacks.
USUAL = {
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
DEFAULTS = {
    "bert": USUAL,
    "albert": {
        **USUAL,
        "embedding_size": 128,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": "gelu_new",
    },
    "electra": {**USUAL, "embedding_size": 128},
    "roformer": {**USUAL, "embedding_size": None},
}
# What fields should be that are no positive integers.
KINDS = {
    "num_hidden_layers": "an integer from 1 to 1000",  # no tensor counts the blocks of an ALBERT
    "embedding_size": "a positive integer or null",
    "hidden_dropout_prob": "a number in [0, 1)",
    "attention_probs_dropout_prob": "a number in [0, 1)",
    "layer_norm_eps": "a positive, finite number",
}
# Fields with the one value that our encoders have.
FIXED = {
    "position_embedding_type": "absolute",
    "num_hidden_groups": 1,
    "inner_group_num": 1,
    "rotary_value": False,
    "is_decoder": False,
    "add_cross_attention": False,
}
ACTIVATIONS = {  # Hugging Face's names; the first of ours is the one that is written
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "linear": "linear",
}
# Arguments that change the numbers and have no field, with the value that Hugging Face's have.
OURS_ONLY = {
    "head_size": None,
    "key_size": None,
    "hierarchical_position": None,
    "application": "encoder",
}


def encoder_arguments(config, model_type=None):
    """The encoder, and its arguments, that a Hugging Face config stands for.

    Args:
        config: dict, the content of `config.json`.
        model_type: str, for a config that does not say it.

    Returns:
        Tuple of the class and a dict of keyword arguments.

    Raises:
        ValueError: if a size is missing, a field has an impossible value, or the config describes
            a model that no encoder of ours computes.

    Example:

    >>> sizes = dict(vocab_size=9, num_hidden_layers=1, num_attention_heads=2, hidden_size=8)
    >>> config = {**sizes, "intermediate_size": 16, "hidden_act": "gelu_new"}
    >>> encoder_arguments(config, "bert")[1]["activation"]
    'gelu_tanh'
    """
    model_type = config.get("model_type", model_type)
    if model_type not in list(ENCODERS):  # which may be no string
        raise ValueError(
            f"Expected a config with model_type of {', '.join(map(repr, ENCODERS))}. "
            f"Received: {model_type=}"
        )
    for field, expected in FIXED.items():
        if config.get(field, expected) != expected:
            raise ValueError(
                f"Expected a config with {field}={expected!r}; the encoders know no other. "
                f"Received: {field}={config[field]!r}"
            )
    lacking = [field for field in SIZES if field not in config]
    if lacking:
        raise ValueError(f"The config lacks {', '.join(lacking)}. Received: keys={sorted(config)}")
    config = {**DEFAULTS[model_type], **config}
    fields = FIELDS[model_type]
    if config["hidden_act"] not in list(ACTIVATIONS):  # which may be no string
        raise ValueError(
            f"Expected hidden_act to be one of {sorted(ACTIVATIONS)}. "
            f"Received: hidden_act={config['hidden_act']!r}"
        )
    for field in (field for field in fields if field != "hidden_act"):
        check_field(field, config[field], KINDS.get(field, "a positive integer"))
    arguments = {ours: config[theirs] for theirs, ours in fields.items()}
    arguments["activation"] = ACTIVATIONS[arguments["activation"]]
    return ENCODERS[model_type], arguments


def huggingface_config(encoder):
    """The `config.json` of an encoder.

    Args:
        encoder: encoder of one of the four kinds that Hugging Face has.

    Returns:
        Dict, from which `encoder_arguments` gives the arguments of the encoder (heads, names, dtype
        and `custom_position_ids` apart).

    Raises:
        ValueError: if Hugging Face's models cannot compute what the encoder does.

    Example:

    >>> encoder = BertEncoder(9, num_layers=1, num_heads=1, hidden_dim=4, intermediate_dim=8)
    >>> huggingface_config(encoder)["model_type"]
    'bert'
    """
    model_type = next((name for name, kind in ENCODERS.items() if type(encoder) is kind), None)
    if model_type is None:
        raise ValueError(
            f"Hugging Face's format is known for {', '.join(k.__name__ for k in ENCODERS.values())} "
            f"only. Received: encoder={type(encoder).__name__}"
        )
    config = {theirs: getattr(encoder, ours) for theirs, ours in FIELDS[model_type].items()}
    activation = activations.serialize(encoder.activation)
    names = [theirs for theirs, ours in ACTIVATIONS.items() if ours == activation]
    faults = {
        name: getattr(encoder, name)
        for name, expected in OURS_ONLY.items()
        if getattr(encoder, name, expected) not in (expected, _size_of_heads(encoder, name))
    }
    if not names:
        faults["activation"] = activation
    if not encoder.num_segments:
        faults["num_segments"] = encoder.num_segments
    width = encoder.embedding_dim or encoder.hidden_dim
    # Hugging Face's ALBERT always maps its embeddings, its BERT never.
    if (model_type, width == encoder.hidden_dim) in (("albert", True), ("bert", False)):
        faults["embedding_dim"] = encoder.embedding_dim
    if getattr(encoder, "with_pool", False) not in (False, True, "tanh"):
        faults["with_pool"] = encoder.with_pool
    if faults:
        raise ValueError(
            f"Hugging Face's {model_type} has no field for what this encoder is. Received: "
            + ", ".join(f"{name}={value!r}" for name, value in faults.items())
        )
    if "embedding_size" in config:
        config["embedding_size"] = width
    return {"model_type": model_type, **config, "hidden_act": names[0]}


def _size_of_heads(encoder, name):
    return encoder.hidden_dim // encoder.num_heads if name in ("head_size", "key_size") else None


def sizes_of_tensors(values):
    """The arguments of a `BertEncoder` that the tensors of a file show; not the number of heads.

    Args:
        values: dict from Hugging Face's names to arrays.

    Returns:
        Dict of keyword arguments.

    Raises:
        ValueError: if it is no BERT.
    """
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
    except (KeyError, IndexError) as error:
        raise ValueError(f"The weight file is not of a BERT: it lacks {error}.") from error
