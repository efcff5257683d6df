"""The models that bert4keras builds for the parity tests, as data: no bert4keras is imported here."""

from dataclasses import dataclass, field
from typing import Any


def config(**changes):
    """A tiny `bert_config.json`, with keys of Google's own that bert4keras ignores."""
    return {
        "attention_probs_dropout_prob": 0.1,
        "directionality": "bidi",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 16,
        "initializer_range": 0.02,
        "intermediate_size": 24,
        "max_position_embeddings": 20,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "pooler_type": "first_token_transform",
        "type_vocab_size": 2,
        "vocab_size": 40,
        **changes,
    }


WIDE = config(
    hidden_act="relu",
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    hidden_size=24,
    intermediate_size=20,
    max_position_embeddings=13,
    num_attention_heads=4,
    vocab_size=33,
)
FACTORISED = config(embedding_size=10, net_structure_type=0, inner_group_num=1)
NO_BIAS = config(hidden_act="relu", attention_key_size=6)
GAU = config(hidden_act="swish", intermediate_size=32, attention_key_size=8)
HEADS = {"with_pool": True, "with_nsp": True, "with_mlm": True}


@dataclass(frozen=True)
class Encoder:
    """One call of `build_transformer_model`.

    Args:
        model: Name of the architecture; "gau_alpha" is the class of gau_alpha.py.
        config: Content of the JSON file.
        kwargs: The other arguments of `build_transformer_model`.
        application: "encoder", "lm" or "unilm".
        source: None, or (model, kwargs) of another model that writes the checkpoint from which the
            model of this case is loaded: the full vocabulary, heads that the case does not have,
            the state of an optimizer.
        checkpoint: Whether the case has a checkpoint under Google's names.
        gelu: What `set_gelu` is told.
        length: Tokens a row.
        frozen: Layers, or `layer/sublayer`s, that are not trainable when the model is saved.
        draw_tables: Whether NEZHA's sinusoidal table is replaced by random numbers, too.
        newer: Whether tf.keras' later formats are written, too.
    """

    model: str = "bert"
    config: dict[str, Any] = field(default_factory=config)
    kwargs: dict[str, Any] = field(default_factory=dict)
    application: str = "encoder"
    source: tuple[str, dict[str, Any]] | None = None
    checkpoint: bool = True
    gelu: str = "erf"
    length: int = 11
    frozen: tuple[str, ...] = ()
    draw_tables: bool = False
    newer: bool = False


ENCODERS = {
    "bert": Encoder(),
    "bert-pool": Encoder(config=WIDE, kwargs={"with_pool": True}),
    "bert-pool-linear": Encoder(kwargs={"with_pool": "linear"}),
    "bert-nsp": Encoder(config=config(num_hidden_layers=1), kwargs={"with_nsp": True}),
    "bert-mlm": Encoder(kwargs={"with_mlm": True}),
    "bert-mlm-linear": Encoder(config=WIDE, kwargs={"with_mlm": "linear"}),
    "bert-pool-mlm": Encoder(config=FACTORISED, kwargs={"with_pool": True, "with_mlm": "linear"}),
    "bert-nsp-mlm": Encoder(kwargs=HEADS),
    "bert-gelu-tanh": Encoder(kwargs={"with_mlm": "linear"}, gelu="tanh"),
    "bert-swish": Encoder(config=config(hidden_act="swish"), kwargs={"with_mlm": "linear"}),
    "bert-key-size": Encoder(kwargs={"attention_key_size": 5}),
    "bert-head-size": Encoder(config=WIDE, kwargs={"attention_head_size": 7}),
    "bert-hierarchical": Encoder(
        config=config(max_position_embeddings=4), kwargs={"hierarchical_position": True}
    ),
    "bert-hierarchical-custom-position": Encoder(
        config=config(max_position_embeddings=5),
        kwargs={"hierarchical_position": 0.3, "custom_position_ids": True},
    ),
    "bert-custom-position": Encoder(config=WIDE, kwargs={"custom_position_ids": True}),
    "bert-no-segments": Encoder(kwargs={"segment_vocab_size": 0, "with_mlm": "linear"}),
    "bert-no-segments-custom-position": Encoder(
        kwargs={"segment_vocab_size": 0, "custom_position_ids": True}
    ),
    "bert-three-segments": Encoder(config=config(type_vocab_size=3)),
    "bert-sequence-length": Encoder(kwargs={"sequence_length": 11}),
    "bert-keep-tokens": Encoder(
        kwargs={"keep_tokens": [0, 3, 39, 7, 8, 21, 22, 2], "with_mlm": "linear"},
        source=("bert", HEADS),
    ),
    "bert-compound-tokens": Encoder(
        kwargs={
            "keep_tokens": [0, 5, 4, 30, 31, 32],
            "compound_tokens": [[1, 2], ([3, 4, 5], [0.2, 0.5, 0.3])],
            "with_mlm": "linear",
        },
        source=("bert", {"with_mlm": True}),
    ),
    "bert-heads-left-over": Encoder(source=("bert", HEADS)),
    "bert-lm": Encoder(application="lm"),
    "bert-unilm": Encoder(kwargs={"with_mlm": "linear"}, application="unilm"),
    "bert-frozen": Encoder(
        kwargs={"with_mlm": "linear"},
        frozen=("Embedding-Token", "Embedding-Norm", "Transformer-0-MultiHeadSelfAttention"),
    ),
    "bert-frozen-sublayer": Encoder(
        frozen=(
            "Transformer-0-MultiHeadSelfAttention/q_dense",
            "Transformer-1-FeedForward/i0_dense",
        )
    ),
    "bert-newer-formats": Encoder(kwargs={"with_mlm": "linear"}, newer=True),
    "roberta": Encoder("roberta", config=WIDE),
    "roberta-mlm": Encoder("roberta", kwargs={"with_mlm": "linear"}),
    "albert": Encoder("albert", config=FACTORISED),
    "albert-mlm": Encoder("albert", config=FACTORISED, kwargs={"with_mlm": "linear"}),
    "albert-nsp-mlm": Encoder("albert", config=config(embedding_size=8), kwargs=HEADS),
    "albert-unilm": Encoder("albert", config=FACTORISED, application="unilm"),
    "albert-unshared": Encoder(
        "albert_unshared",
        config=FACTORISED,
        kwargs={"with_mlm": "linear"},
        source=("albert", {"with_mlm": True}),
    ),
    "albert-unshared-apart": Encoder("albert_unshared", config=FACTORISED, checkpoint=False),
    "nezha": Encoder("nezha"),
    "nezha-long": Encoder("nezha", config=WIDE, length=70),
    "nezha-pool-mlm": Encoder("nezha", kwargs={"with_pool": True, "with_mlm": "linear"}),
    "nezha-unilm": Encoder("nezha", kwargs={"with_mlm": "linear"}, application="unilm"),
    "nezha-other-table": Encoder("nezha", checkpoint=False, draw_tables=True),
    "roformer": Encoder("roformer"),
    "roformer-mlm": Encoder("roformer", config=WIDE, kwargs={"with_mlm": "linear"}),
    "roformer-pool": Encoder("roformer", config=FACTORISED, kwargs={"with_pool": True}),
    "roformer-key-size": Encoder("roformer", kwargs={"attention_key_size": 6}),
    "roformer-custom-position": Encoder("roformer", kwargs={"custom_position_ids": True}),
    "roformer-lm": Encoder("roformer", kwargs={"with_mlm": "linear"}, application="lm"),
    "roformer-v2": Encoder("roformer_v2", config=NO_BIAS),
    # Google's names have none for Output-Mapping: bert4keras neither saves nor loads that layer there.
    "roformer-v2-mlm": Encoder(
        "roformer_v2", kwargs={"with_mlm": True, "embedding_size": 10}, checkpoint=False
    ),
    "roformer-v2-mlm-linear": Encoder("roformer_v2", config=WIDE, kwargs={"with_mlm": "linear"}),
    "roformer-v2-unilm": Encoder(
        "roformer_v2", config=NO_BIAS, kwargs={"with_mlm": "linear"}, application="unilm"
    ),
    "electra": Encoder("electra", config=FACTORISED),
    "electra-wide": Encoder("electra", config=WIDE),
    "electra-discriminator": Encoder(
        "electra", config=FACTORISED, kwargs={"with_discriminator": True}
    ),
    "electra-discriminator-linear": Encoder("electra", kwargs={"with_discriminator": "linear"}),
    "gau-alpha": Encoder("gau_alpha", config=GAU),
    "gau-alpha-mlm": Encoder("gau_alpha", config=GAU, kwargs={"with_mlm": "linear"}),
    "gau-alpha-lm": Encoder("gau_alpha", config=GAU, application="lm"),
}

# Whole models: functions of heads.py.
HEAD_MODELS = (
    "bert-global-pointer",
    "bert-global-pointer-plain",
    "bert-efficient-global-pointer",
    "bert-efficient-global-pointer-no-rope",
    "bert-efficient-global-pointer-no-tril",
    "bert-efficient-global-pointer-plain",
    "roformer-efficient-global-pointer",
    "roformer-v2-global-pointer",
    "bert-two-heads",
    "bert-tagger-on-inner-layer",
    "albert-tagger-on-inner-node",
    "bert-pooled-classifier",
    "bert-average-classifier",
    "bert-max-classifier",
    "bert-mlm-and-dense",
    "bert-nested",
    "bert-compiled",
    "gau-squared-relu",
    "gau-softmax-plus",
    "gau-softmax",
    "gau-relu-dropout",
    "gau-cross-attention",
)

# What users build around bert4keras: functions of user_models.py.
USER_MODELS = (
    "gpt",
    "keras_layers",
    "nested_twice",
    "prefixed",
    "shared_segments",
    "siamese",
)

# Functions of unsupported.py -> the layer that has no counterpart here.
UNSUPPORTED = {
    "bert-crf": "crf",
    "bert-memm": "memm",
    "bert-conditional-norm": "Embedding-Norm",
    "bert-residual-scores": "Transformer-0-MultiHeadSelfAttention",
    "bert-user-lambda": "CLS-token",
    "bert-user-layer": "doubled",
    "t5": "Encoder-Embedding-Relative-Position",
}

# Cases whose files are those of another case as older versions wrote them -> the other case.
OLD_ORDER = {  # bert4keras before 0.11.4
    "gau-squared-relu-old-order": "gau-squared-relu",
    "gau-softmax-plus-old-order": "gau-softmax-plus",
    "gau-alpha-old-order": "gau-alpha",
}
KERAS_2_3 = {
    f"{name}-keras-2.3": name
    for name in (
        "bert-mlm-linear",
        "bert-nsp-mlm",
        "bert-unilm",
        "albert-mlm",
        "nezha-pool-mlm",
        "roformer-lm",
        "roformer-v2-mlm",
        "electra-discriminator",
        "gau-alpha-lm",
        *HEAD_MODELS,
    )
}
