"""Which of our layers takes the place of each class of bert4keras."""

import keras

from keras_ext import layers
from keras_ext.bert4keras.convert_calls import (
    add_positions,
    attend,
    embed,
    gate,
    keep_mask,
    mask_or_pool,
    relate,
    turn,
    use_mask,
)
from keras_ext.bert4keras.convert_keras import KERAS_LAYERS, Translator, with_mask
from keras_ext.bert4keras.legacy_config import activation, general
from keras_ext.layers.padding_mask import PaddingMask


def _only(config, **allowed):
    """Raises ValueError for a setting with another value than the allowed ones, default first."""
    for name, values in allowed.items():
        if config.get(name, values[0]) not in values:
            raise ValueError(f"the setting {name}={config[name]!r} has no counterpart")


def _embedding(config, nodes, graph):
    sizes = config["input_dim"], config["output_dim"]
    if any(node.arguments.get("mode") == "dense" for node in nodes):
        dtype = general(config)["dtype"].compute_dtype
        layer = keras.layers.ReversibleEmbedding(*sizes, reverse_dtype=dtype, **general(config))
    else:
        layer = keras.layers.Embedding(*sizes, **general(config))
    mask = PaddingMask(name=f"{layer.name}-Padding") if config.get("mask_zero") else None
    return *with_mask(layer), mask


def _position_embedding(config, nodes, graph):
    _only(config, merge_mode=("add",))
    alpha = config.get("hierarchical") or None
    return layers.PositionEmbedding(
        config["input_dim"], hierarchical=0.4 if alpha is True else alpha, **general(config)
    )


def _rotary_embedding(config, nodes, graph):
    # Our layers turn their queries and keys themselves.
    _only(config, merge_mode=("add", "zero"))
    if config["merge_mode"] == "add":
        raise ValueError("sines added to the embeddings have no counterpart")


def _relative_embedding(config, nodes, graph):
    return layers.RelativePositionEmbedding(
        config["input_dim"], config["output_dim"], **general(config)
    )


def _attention(config, nodes, graph):
    if "heads" not in config:
        raise ValueError("it is Keras' own, not that of bert4keras")
    _only(
        config,
        normalization=("softmax",),
        attention_scale=(True,),
        return_attention_scores=(False,),
    )
    return layers.MultiHeadSelfAttention(
        config["heads"],
        config["head_size"],
        key_size=config.get("key_size"),
        output_dim=config.get("out_dim"),
        rope=_rope(nodes, "rotary", "typical_relative"),
        use_bias=config.get("use_bias", True),
        attention_dropout=config.get("attention_dropout") or 0.0,
        **general(config),
    )


def _gated_unit(config, nodes, graph):
    return layers.GatedAttentionUnit(
        config["units"],
        config["key_size"],
        activation=activation(config.get("activation", "swish")),
        use_bias=config.get("use_bias", True),
        normalization=config.get("normalization", "squared_relu"),
        self_attention=config.get("self_attention", True),
        attention_scale=config.get("attention_scale", True),
        attention_dropout=config.get("attention_dropout") or 0.0,
        rope=_rope(nodes, "rotary"),
        **general(config),
    )


def _rope(nodes, *allowed):
    """Whether the calls of a layer turn queries and keys; they must agree."""
    kinds = {node.arguments.get("p_bias") for node in nodes}
    if len(kinds) != 1 or not kinds <= {None, *allowed}:
        raise ValueError(f"the positions {sorted(map(str, kinds))} have no counterpart")
    return kinds == {"rotary"}


def _feed_forward(config, nodes, graph):
    functions = config.get("activation", "relu")
    functions = functions if isinstance(functions, list) else [functions]
    if len(functions) > 1:
        raise ValueError("the gated form (a list of activations) has no counterpart")
    use_bias = config.get("use_bias", True)
    return layers.FeedForward(
        config["units"], activation(functions[0]), use_bias=use_bias, **general(config)
    )


def _norm(config, nodes, graph):
    _only(
        config,
        conditional=(False,),
        unit_variance=(True,),
        scale=(True, False, None),
        offset=(True, False, None),
    )
    # In bert4keras 0.10 and before, and in Keras' own layer, the offset is called "center".
    scale, offset = config.get("scale", True), config.get("offset", config.get("center", True))
    arguments = {"epsilon": config["epsilon"], **general(config)}
    if "axis" in config:
        return keras.layers.LayerNormalization(
            config["axis"], center=offset, scale=scale, **arguments
        )
    if "zero_mean" not in config and not (scale and offset):
        raise ValueError("without scale or offset, that of bert4keras 0.10 has no counterpart")
    if config.get("zero_mean", True) and scale and offset:
        return layers.LayerNorm(**arguments)
    if config.get("zero_mean", True):
        return keras.layers.LayerNormalization(center=bool(offset), scale=bool(scale), **arguments)
    if scale or offset:
        raise ValueError("zero_mean=False with a scale or an offset has no counterpart")
    return layers.RMSNorm(**arguments)


def _scale_offset(config, nodes, graph):
    choice = (True, False, None)
    _only(config, conditional=(False,), scale=choice, offset=choice)
    return layers.ScaleOffset(
        bool(config.get("scale", True)), bool(config.get("offset", True)), **general(config)
    )


def _bias_add(config, nodes, graph):
    return layers.ScaleOffset(scale=False, **general(config))


def _pointer(cls):
    def make(config, nodes, graph):
        return cls(
            config["heads"],
            config["head_size"],
            rope=config.get("RoPE", True),
            use_bias=config.get("use_bias", True),
            tril_mask=config.get("tril_mask", True),
            **general(config),
        )

    return Translator(make, use_mask)


def _lambda(config, nodes, graph):
    """A Lambda holds bytecode, which is never run: bert4keras' own are told by their names."""
    name = config["name"]
    known = [n for n in LAMBDAS if name.endswith(n)]
    prefixes = [name.removesuffix(n) for n in known]
    if (
        not any(f"{prefix}Embedding-Token" in graph.layers for prefix in prefixes)
        or config.get("module", "bert4keras.models") != "bert4keras.models"
    ):
        raise ValueError("a Lambda holds code of its own, which is never run")
    application = LAMBDAS[known[0]]
    return application and layers.AttentionMask(application, **general(config))


# Names of layers, without bert4keras' prefix -> the application of an `AttentionMask`.
LAMBDAS = {"Pooler": None, "Attention-LM-Mask": "lm", "Attention-UniLM-Mask": "unilm"}
TRANSLATORS = {
    **KERAS_LAYERS,
    "BiasAdd": Translator(_bias_add, keep_mask),
    "EfficientGlobalPointer": _pointer(layers.EfficientGlobalPointer),
    "Embedding": Translator(_embedding, embed),
    "FeedForward": Translator(_feed_forward, keep_mask),
    "GatedAttentionUnit": Translator(_gated_unit, gate),
    "GlobalPointer": _pointer(layers.GlobalPointer),
    "Lambda": Translator(_lambda, mask_or_pool),
    "LayerNormalization": Translator(_norm, keep_mask),
    "MultiHeadAttention": Translator(_attention, attend),
    "PositionEmbedding": Translator(_position_embedding, add_positions),
    "RelativePositionEmbedding": Translator(_relative_embedding, relate),
    "ScaleOffset": Translator(_scale_offset, keep_mask),
    "SinusoidalPositionEmbedding": Translator(_rotary_embedding, turn),
}
