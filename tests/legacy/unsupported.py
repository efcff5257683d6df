"""Models of bert4keras that a converter must refuse, each for one of its layers.

Each function builds one model; its name with "-" for "_" is the name of the case.
"""

import cases
from bert4keras.backend import keras
from bert4keras.layers import ConditionalRandomField, MaximumEntropyMarkovModel
from bert4keras.models import build_transformer_model
from heads import Dense, Input, encoder, on


class Doubled(keras.layers.Layer):
    """A layer of the user's own."""

    def call(self, inputs):
        return inputs * 2


def bert_crf():
    base = encoder()
    tags = Dense(5)(base.output)
    return on(base, ConditionalRandomField(lr_multiplier=100, name="crf"), tags)


def bert_memm():
    base = encoder()
    tags = Dense(5)(base.output)
    return on(base, MaximumEntropyMarkovModel(hidden_dim=3, name="memm"), tags)


def bert_conditional_norm():
    condition = Input((6,), name="condition")
    return encoder(layer_norm_cond=condition, additional_input_layers=condition)


def bert_residual_scores():
    return encoder(residual_attention_scores=True)


def bert_user_lambda():
    """The first token, as many scripts take it."""
    base = encoder()
    first = keras.layers.Lambda(lambda x: x[:, 0], name="CLS-token")(base.output)
    return on(base, Dense(2, activation="softmax"), first)


def bert_user_layer():
    return on(encoder(), Doubled(name="doubled"))


def t5():
    return build_transformer_model(model="t5.1.1", **cases.config(hidden_act="relu"))
