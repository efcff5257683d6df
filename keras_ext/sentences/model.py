"""The models of `SentenceEncoder`: texts to vectors, and examples of several texts to train on."""

import keras

from keras_ext.layers import Pooling, UnitNormalization
from keras_ext.models.blocks import encoder_inputs
from keras_ext.tasks.encoder import encode

POOLING = "pooling"
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
    pool = Pooling(pooling, dtype=encoder.dtype_policy, name=POOLING)
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


def check_settings(model, pooling, normalize):
    """Raises ValueError where a model has another pooling or normalisation than these.

    Args:
        model: `keras.Model` of a `SentenceEncoder`.
        pooling: what the mode of its pooling should be.
        normalize: whether it should normalise.
    """
    layers = {layer.name: layer for layer in model.layers}
    found = getattr(layers.get(POOLING), "mode", None), NORMALIZATION in layers
    if found != (pooling, normalize):
        raise ValueError(
            "The model has pooling={!r} and normalize={}; the settings say something else. "
            f"Received: {pooling=}, {normalize=}".format(*found)
        )


def _unfinished(model, normalize):
    return model.get_layer(NORMALIZATION).input if normalize else model.output


def _finish(vectors, normalize):
    if not normalize:
        return vectors
    return UnitNormalization(dtype="float32", name=NORMALIZATION)(vectors)


@keras.saving.register_keras_serializable(package="keras_ext")
class Views(keras.Model):
    """The vectors of the texts of examples, by one encoder: what is trained.

    Args:
        encoder: `keras.Model` from a dict of (rows, n) arrays to vectors (rows, d).
        head: layer on (b, m, d), or None.

    Call arguments:
        inputs: tuple of m dicts of arrays (b, n).

    Returns:
        (b, m, d), or what the head makes of it.
    """

    def __init__(self, encoder, head=None, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.head = head
        self.built = True  # the parts are; callbacks ask for it

    def call(self, inputs, training=None):
        rows = keras.tree.map_structure(lambda *views: keras.ops.concatenate(views), *inputs)
        vectors = self.encoder(rows, training=training)  # (m b, d)
        vectors = keras.ops.reshape(vectors, (len(inputs), -1, vectors.shape[-1]))
        vectors = keras.ops.transpose(vectors, (1, 0, 2))
        return vectors if self.head is None else self.head(vectors)

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "head": keras.saving.serialize_keras_object(self.head),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in ("encoder", "head")
        }
        return super().from_config({**config, **parts}, custom_objects)
