"""The graph of `SentenceEncoder`: encoder, pooling, normalisation; projections put between."""

import keras

from keras_ext.layers import Pooling, UnitNormalization
from keras_ext.models.blocks import encoder_inputs
from keras_ext.tasks.encoder import encode

NORMALIZATION = "unit_normalization"


def sentence_model(encoder, pooling, normalize):
    """The model from token ids to vectors.

        vectors = normalise(pooling(encoder(token ids)))

    Args:
        encoder: functional `keras.Model`, as in `encoder.encode`.
        pooling: mode of `layers.Pooling`.
        normalize: bool, whether the vectors get length 1.

    Returns:
        Functional `keras.Model`, a dict of (b, n) inputs to float32 (b, d).
    """
    inputs = encoder_inputs()
    hidden = encode(encoder, inputs, first=pooling == "first_last")
    pool = Pooling(pooling, dtype=encoder.dtype_policy, name="pooling")
    vectors = pool(hidden, mask=inputs["padding_mask"])
    return keras.Model(inputs, _finish(vectors, normalize))


def project(model, projection, normalize):
    """The model with one more projection before the normalisation.

    Args:
        model: what `sentence_model` made.
        projection: built layer, (b, d) to (b, e).
        normalize: bool, whether the model normalises.

    Returns:
        Functional `keras.Model` that shares all layers.
    """
    vectors = projection(_unfinished(model, normalize))
    return keras.Model(model.input, _finish(vectors, normalize))


def unnormalized(model, normalize):
    """The model without its normalisation."""
    return keras.Model(model.input, _unfinished(model, normalize)) if normalize else model


def _unfinished(model, normalize):
    return model.get_layer(NORMALIZATION).input if normalize else model.output


def _finish(vectors, normalize):
    if not normalize:
        return vectors
    return UnitNormalization(dtype="float32", name=NORMALIZATION)(vectors)
