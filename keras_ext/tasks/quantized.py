"""Models with quantised layers as files: their configuration says nothing of layers inside layers."""

import json
import zipfile

import keras

from keras_ext.keras_internals import layers_inside


def quantized_layers(model):
    """The layers that `keras.Model.quantize` has changed.

    Args:
        model: `keras.Model`.

    Returns:
        Dict from the path of a layer to its mode, such as "int8"; empty without any.
    """
    layers = layers_inside(model)
    return {each.path: each.quantization_mode for each in layers if each.quantization_mode}


def load_model(path, quantized):
    """Reads a model in Keras' format, not compiled.

    Args:
        path: path of the file.
        quantized: what `quantized_layers` gave when it was saved. These layers are made as the
            configuration says, in floats, and quantised before they get their weights.

    Returns:
        `keras.Model`.

    Raises:
        ValueError: if the model has no such layer, or its weights do not fit.
    """
    if not quantized:
        return keras.models.load_model(path, compile=False)
    with zipfile.ZipFile(path) as file:
        config = json.loads(file.read("config.json"))
    model = keras.saving.deserialize_keras_object(config)
    layers = {layer.path: layer for layer in layers_inside(model)}
    missing = sorted(set(quantized) - set(layers))
    if missing:
        raise ValueError(
            f"The model lacks layers that were quantised. Received: {missing} in {str(path)!r}"
        )
    for name, mode in quantized.items():
        layers[name].quantize(mode)
    model.load_weights(path)
    return model
