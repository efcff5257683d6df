"""Whole models of bert4keras, as its users put them together: heads on encoders, stacks of layers.

Each function builds one model; its name with "-" for "_" is the name of the case.
"""

import cases
from bert4keras.backend import keras
from bert4keras.layers import (
    EfficientGlobalPointer,
    Embedding,
    GatedAttentionUnit,
    GlobalAveragePooling1D,
    GlobalMaxPooling1D,
    GlobalPointer,
    LayerNormalization,
    SinusoidalPositionEmbedding,
)
from bert4keras.models import build_transformer_model

Add, Dense, Dropout = keras.layers.Add, keras.layers.Dense, keras.layers.Dropout
Input, Model = keras.layers.Input, keras.models.Model
SIZES = cases.config(num_hidden_layers=1)


def encoder(model="bert", **kwargs):
    return build_transformer_model(model=model, **{**SIZES, **kwargs})


def on(base, layer, tensor=None):
    """The model with one layer on top of its output, or of another tensor of it."""
    return Model(base.input, layer(base.output if tensor is None else tensor))


def bert_global_pointer():
    return on(encoder(), GlobalPointer(heads=3, head_size=6, name="span"))


def bert_global_pointer_plain():
    return on(encoder(), GlobalPointer(2, 5, RoPE=False, use_bias=False, tril_mask=False))


def bert_efficient_global_pointer():
    return on(encoder(), EfficientGlobalPointer(heads=3, head_size=6))


def bert_efficient_global_pointer_no_rope():
    return on(encoder(), EfficientGlobalPointer(heads=4, head_size=6, RoPE=False))


def bert_efficient_global_pointer_no_tril():
    return on(encoder(), EfficientGlobalPointer(heads=1, head_size=8, tril_mask=False))


def bert_efficient_global_pointer_plain():
    head = EfficientGlobalPointer(2, 5, RoPE=False, use_bias=False, tril_mask=False)
    return on(encoder(segment_vocab_size=0), head)


def roformer_efficient_global_pointer():
    return on(encoder("roformer"), EfficientGlobalPointer(heads=3, head_size=6))


def roformer_v2_global_pointer():
    return on(encoder("roformer_v2"), GlobalPointer(heads=3, head_size=4))


def bert_two_heads():
    """Entities and relations read the same encoder, as in GPLinker."""
    base = encoder()
    entities = GlobalPointer(heads=2, head_size=6, name="entities")(base.output)
    relations = EfficientGlobalPointer(2, 4, RoPE=False, tril_mask=False, name="relations")
    return Model(base.inputs, [entities, relations(base.output)])


def bert_tagger_on_inner_layer():
    """The block before the last one: the last one is not a part of the model."""
    base = encoder(num_hidden_layers=3)
    hidden = base.get_layer("Transformer-1-FeedForward-Norm").output
    return on(base, Dense(5, activation="softmax"), hidden)


def albert_tagger_on_inner_node():
    """The output of the shared block at its second call of three."""
    base = encoder("albert", embedding_size=10, num_hidden_layers=3)
    hidden = base.get_layer("Transformer-FeedForward-Norm").get_output_at(1)
    return on(base, Dense(5, activation="softmax"), hidden)


def bert_pooled_classifier():
    base = encoder(with_pool=True)
    x = Dropout(rate=0.1)(base.output)
    x = Dense(
        units=2, activation="softmax", kernel_initializer=base.layers[2].embeddings_initializer
    )(x)
    return Model(base.input, x)


def bert_average_classifier():
    base = encoder()
    return on(base, Dense(3, activation="softmax"), GlobalAveragePooling1D()(base.output))


def bert_max_classifier():
    base = encoder()
    return on(base, Dense(1, activation="sigmoid"), GlobalMaxPooling1D()(base.output))


def bert_mlm_and_dense():
    """A list of two outputs, one of them of bert4keras itself."""
    base = encoder(with_mlm="linear", with_pool=True)
    pooled, scores = base.output
    return Model(base.input, [scores, Dense(4, name="classes")(pooled)])


def bert_nested():
    """The encoder called as one layer."""
    base = encoder()
    token_ids, segment_ids = (
        Input((None,), name="Input-Token"),
        Input((None,), name="Input-Segment"),
    )
    return Model([token_ids, segment_ids], Dense(3)(base([token_ids, segment_ids])))


def bert_compiled():
    """A model that was trained: the files hold the state of the optimizer, too."""
    model = on(encoder(), Dense(3, activation="softmax", name="tags"))
    adam = keras.optimizers.legacy.Adam(1e-4)
    model.compile(loss="sparse_categorical_crossentropy", optimizer=adam)
    return model


def gated_units(count, key_size, rotary=False, **arguments):
    """Blocks norm(x + GAU(x)) on an embedding that masks token 0."""
    token_ids = Input((None,), name="Input-Token")
    x = Embedding(30, 12, mask_zero=True, name="Embedding-Token")(token_ids)
    positions = SinusoidalPositionEmbedding(key_size, "zero", name="positions")(x)
    for index in range(count):
        unit = GatedAttentionUnit(20, key_size, name=f"unit-{index}", **arguments)
        y = unit([x, positions], p_bias="rotary") if rotary else unit(x)
        x = LayerNormalization(name=f"norm-{index}")(Add(name=f"add-{index}")([x, y]))
    return Model(token_ids, x)


def gau_squared_relu():
    return gated_units(2, 6)


def gau_softmax_plus():
    return gated_units(2, 6, rotary=True, normalization="softmax_plus", use_bias=False)


def gau_softmax():
    return gated_units(2, 8, rotary=True, normalization="softmax", attention_scale=False)


def gau_relu_dropout():
    return gated_units(1, 6, activation="relu", attention_dropout=0.1)


def gau_cross_attention():
    """Query, key and value are three inputs of the unit, here the same tensor."""
    token_ids = Input((None,), name="Input-Token")
    x = Embedding(30, 12, mask_zero=True, name="Embedding-Token")(token_ids)
    unit = GatedAttentionUnit(20, 6, self_attention=False, name="unit")
    return Model(token_ids, unit([x, x, x]))
