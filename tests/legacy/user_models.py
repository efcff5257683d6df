"""Models as users put them together around bert4keras."""

import numpy as np
from bert4keras.backend import keras
from bert4keras.layers import GlobalAveragePooling1D, GlobalMaxPooling1D
from heads import encoder
from inputs import draw_inputs

layers, Input, Model = keras.layers, keras.layers.Input, keras.models.Model


def keras_layers():
    """Layers of Keras itself, with names that Keras gave them."""
    base = encoder()
    both = layers.Bidirectional(layers.LSTM(3, return_sequences=True, dropout=0.1))(base.output)
    gru = layers.GRU(4, return_sequences=True)(base.output)
    x = layers.LayerNormalization()(layers.Concatenate()([both, gru, base.output]))
    x = layers.BatchNormalization()(x)
    l2 = keras.regularizers.l2(1e-3)
    y = layers.Conv1D(5, 3, padding="same", activation="relu", kernel_regularizer=l2)(x)
    pooled = layers.Permute((2, 1))(layers.MaxPooling1D(2)(y))
    pooled = layers.Flatten()(layers.Reshape((5, -1))(pooled))
    last = layers.Bidirectional(layers.SimpleRNN(3))(x)
    ends = [last, GlobalMaxPooling1D()(y), GlobalAveragePooling1D()(x)]
    classes = layers.Dense(3, activation="softmax")(layers.Concatenate()(ends))
    return Model(base.inputs, [classes, layers.Dropout(0.2)(x), pooled])


def siamese():
    """One encoder called twice, as one layer."""
    base = encoder(with_pool=True)
    one, two, segments = (Input((None,), name=name) for name in ("one", "two", "segments"))
    x, y = base([one, segments]), base([two, segments])
    parts = [x, y, layers.Subtract()([x, y]), layers.Multiply()([x, y])]
    return Model([one, two, segments], layers.Dense(2)(layers.Concatenate()(parts)))


def nested_twice():
    """A model in a model in a model; the mask comes out of both."""
    base = encoder()
    inner = [Input((None,)), Input((None,))]
    middle = Model(inner, layers.Dense(5)(base(inner)))
    outer = [Input((None,), name="tokens"), Input((None,), name="segments")]
    return Model(outer, layers.GRU(4)(middle(outer)))


def prefixed():
    return encoder(prefix="my-", application="unilm", with_mlm="linear", with_pool=True)


def shared_segments():
    return encoder(shared_segment_embeddings=True)


def gpt():
    return encoder("gpt", final_activation="linear")


def draw(model, rng):
    """Two rows of tokens in turn with rows of segments, by the names of the inputs."""
    arrays = {}
    for tensor in model.inputs:
        key = "segment" if "egment" in tensor.name else "token"
        values = draw_inputs(model, rng, vocabulary=30)["token_ids"]
        if key == "segment":
            values = (np.cumsum(values > 20, axis=1) > 0).astype("int32")
        arrays["token_ids" if not arrays else f"input_{len(arrays)}"] = values
    return arrays
