"""bert4keras' configs and arguments, as the arguments of our encoders."""

import inspect
import warnings

from keras_ext.files.json_fields import check_field
from keras_ext.models.albert import AlbertEncoder
from keras_ext.models.albert_unshared import AlbertUnsharedEncoder
from keras_ext.models.bert import BertEncoder
from keras_ext.models.electra import ElectraEncoder
from keras_ext.models.gau_alpha import GAUAlphaEncoder
from keras_ext.models.nezha import NezhaEncoder
from keras_ext.models.roformer import RoFormerEncoder
from keras_ext.models.roformer_v2 import RoFormerV2Encoder

ENCODERS = {
    "bert": BertEncoder,
    "roberta": BertEncoder,
    "albert": AlbertEncoder,
    "albert_unshared": AlbertUnsharedEncoder,
    "nezha": NezhaEncoder,
    "roformer": RoFormerEncoder,
    "roformer_v2": RoFormerV2Encoder,
    "gau_alpha": GAUAlphaEncoder,
    "electra": ElectraEncoder,
}
OTHER_FAMILIES = ("gpt", "t5", "mt5")
REQUIRED = {
    "vocab_size": "vocabulary_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "hidden_size": "hidden_dim",
    "intermediate_size": "intermediate_dim",
    "hidden_act": "activation",
}
# Theirs and ours; the first that is there counts, and `None` is as good as absent.
OPTIONAL = {
    "max_position": "max_sequence_length",
    "max_position_embeddings": "max_sequence_length",
    "segment_vocab_size": "num_segments",
    "type_vocab_size": "num_segments",
    "dropout_rate": "dropout",
    "hidden_dropout_prob": "dropout",
    "attention_dropout_rate": "attention_dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "embedding_size": "embedding_dim",
    "attention_head_size": "head_size",
    "attention_key_size": "key_size",
    "with_pool": "with_pool",
    "with_nsp": "with_nsp",
    "with_mlm": "with_mlm",
    "with_discriminator": "with_discriminator",
    "hierarchical_position": "hierarchical_position",
    "custom_position_ids": "custom_position_ids",
    "max_relative_position": "max_relative_position",
    "name": "name",
    "column_dropout": "column_dropout",  # ours, as dtype
    "dtype": "dtype",
}
NUMBERS = {  # our arguments, with what they must be
    "vocabulary_size": "a positive integer",
    "num_layers": "an integer from 1 to 1000",
    "num_heads": "a positive integer",
    "hidden_dim": "a positive integer",
    "intermediate_dim": "a positive integer",
    "max_sequence_length": "a positive integer",
    "num_segments": "an integer of at least 0",
    "dropout": "a number in [0, 1)",
    "attention_dropout": "a number in [0, 1)",
    "column_dropout": "a number in [0, 1)",
    "embedding_dim": "a positive integer",
    "head_size": "a positive integer",
    "key_size": "a positive integer",
    "max_relative_position": "an integer from 1 to 1000",
}
DEFAULTS = {
    "max_sequence_length": 512,
    "num_segments": 2,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "embedding_dim": None,
}
# What bert4keras has and this package has not (yet).
WITHOUT_COUNTERPART = (
    "additional_input_layers",
    "attention_caches",
    "autoresize_weights",
    "layer_norm_cond",
    "layer_norm_cond_hidden_act",
    "layer_norm_cond_hidden_size",
    "layers",
    "prefix",
    "residual_attention_scores",
    "shared_segment_embeddings",
)
# What bert4keras takes for every model, though some make nothing of it.
GENERAL = ("max_sequence_length", "num_heads", "head_size")
GELU = {"erf": "gelu", "tanh": "gelu_tanh"}


def encoder_class(model, application):
    """The encoder that bert4keras' name of a model stands for, or the class itself.

    Raises:
        ValueError: for a family that is not part of this package, an unknown name, or an
            application that the model has not.
    """
    name = model.lower() if isinstance(model, str) else model
    if isinstance(name, str) and name.startswith(OTHER_FAMILIES):
        raise ValueError(
            "The GPT and T5 families of bert4keras are not part of keras_ext; KerasHub has GPT-2 "
            f"and T5. Received: {model=}"
        )
    encoder = ENCODERS.get(name, None) if isinstance(name, str) else name
    if encoder not in ENCODERS.values():
        raise ValueError(
            f"Expected one of {sorted(ENCODERS)} or the class of one. Received: {model=}"
        )
    if application not in ("encoder", "lm", "unilm"):
        raise ValueError(
            f"Expected an application 'encoder', 'lm' or 'unilm'. Received: {application=}"
        )
    if encoder is ElectraEncoder and application != "encoder":
        raise ValueError(f"ELECTRA is an encoder only. Received: {application=}")
    return encoder


def encoder_arguments(encoder, config, keywords, application="encoder", gelu="erf"):
    """The arguments of an encoder that a config and keyword arguments of bert4keras stand for.

    Args:
        encoder: class of an encoder.
        config: dict, the content of the JSON file. Keys that mean nothing here are reported by a
            warning.
        keywords: dict, which goes before the config. Keys that mean nothing here raise.
        application: "encoder", "lm" or "unilm"; the latter two switch the language model on.
        gelu: "erf" or "tanh", what the activation "gelu" means.

    Returns:
        Dict.

    Raises:
        ValueError: for a field that lacks or has an impossible value, or a keyword argument that
            means nothing here.
    """
    if gelu not in GELU:
        raise ValueError(f"Expected 'erf' or 'tanh'. Received: {gelu=}")
    known = tuple(inspect.signature(encoder.__init__).parameters)
    _check_keywords(encoder, known, keywords)
    # bert4keras has no such field; what another program means by it is not meant for us.
    merged = {**{key: value for key, value in config.items() if key != "dtype"}, **keywords}
    lacking = [key for key in REQUIRED if merged.get(key) is None]
    if lacking:
        raise ValueError(f"The config lacks {', '.join(lacking)}. Received: keys={sorted(merged)}")
    for theirs, ours in {**REQUIRED, **OPTIONAL}.items():
        if ours in NUMBERS and merged.get(theirs) is not None:
            check_field(theirs, merged[theirs], NUMBERS[ours])
    arguments = {ours: merged[theirs] for theirs, ours in REQUIRED.items()}
    for theirs, ours in OPTIONAL.items():
        if merged.get(theirs) is not None:
            arguments.setdefault(ours, merged[theirs])
    arguments = {**DEFAULTS, **arguments}
    if isinstance(arguments["activation"], list):
        raise ValueError(
            "A feed-forward with a gate (a list of activations) has no counterpart in keras_ext. "
            f"Received: hidden_act={arguments['activation']!r}"
        )
    arguments["activation"] = {"gelu": GELU[gelu], "gelu_erf": "gelu"}.get(
        arguments["activation"], arguments["activation"]
    )
    if arguments.get("hierarchical_position") in (True, False):
        arguments["hierarchical_position"] = 0.4 if arguments["hierarchical_position"] else None
    if application != "encoder":
        arguments["application"] = application
        arguments["with_mlm"] = arguments.get("with_mlm") or True
    if encoder is GAUAlphaEncoder and "key_size" not in arguments:
        size = arguments["hidden_dim"] // arguments["num_heads"]
        arguments["key_size"] = arguments.get("head_size", size)
    meaningless = {key for key in config if key not in REQUIRED and key not in OPTIONAL}
    meaningless |= {"dtype"} & set(config)
    meaningless |= {
        key for key in config if OPTIONAL.get(key, "num_heads") not in (*known, *GENERAL)
    }
    if meaningless:
        warnings.warn(
            f"The config has keys without a meaning here: {', '.join(sorted(meaningless))}.",
            stacklevel=4,
        )
    return {name: value for name, value in arguments.items() if name in known}


def _check_keywords(encoder, known, keywords):
    absent = [key for key in keywords if key in WITHOUT_COUNTERPART and _is_given(keywords[key])]
    if absent:
        raise ValueError(
            f"bert4keras' {', '.join(absent)} has no counterpart in keras_ext. "
            f"Received: {absent[0]}={keywords[absent[0]]!r}"
        )
    names = {**REQUIRED, **OPTIONAL}
    for key, value in keywords.items():
        if key in WITHOUT_COUNTERPART:
            continue
        if key not in names:
            raise ValueError(
                f"Unknown argument. Expected some of {sorted(names)}. Received: {key}={value!r}"
            )
        if names[key] not in (*known, *GENERAL) and _is_given(value):
            raise ValueError(f"{encoder.__name__} has no such part. Received: {key}={value!r}")


def _is_given(value):
    """Whether an argument asks for something; a tensor, which is neither true nor false, does."""
    plain = value is None or isinstance(value, int | float | str | list | tuple | dict)
    return bool(value) if plain else True
