"""The weights that tf.keras writes in TensorFlow's format, by layer as those in HDF5."""

import re

import numpy as np

from keras_ext.checkpoints.tensorflow_checkpoint import read_tensors, tensor_names

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
# Layers inside a model that is a layer have two numbers.
LAYERS = re.compile(r"((?:layer(?:_with_weights)?-\d+/)+)(.+)/\.ATTRIBUTES/VARIABLE_VALUE")
# What training keeps beside the weights.
STATE = re.compile(r"(optimizer|save_counter|keras_api)/.*|.*/\.OPTIMIZER_SLOT/.*")


def read_tf_format(path):
    """Reads what `model.save_weights("name.weights")` of tf.keras writes.

    The names of the tensors number the layers ("layer_with_weights-4/q_dense/kernel/..."); the
    names of the layers stand in the graph of objects beside them. The state of training is left out.

    Args:
        path: "name.weights", the part of the path before `.index` and `.data-00000-of-00001`.

    Returns:
        Dict from names of layers to dicts from paths of variables in the layer, such as
        "q_dense/kernel", to arrays.

    Raises:
        ValueError: if there is no such checkpoint, it is cut off (naming the tensors that are not
            whole) or was not written by tf.keras; if TensorFlow is not installed.

    Example:

    ```python
    read_tf_format("best_model.weights")["Transformer-0-FeedForward"]["i0_dense/kernel"]
    ```
    """
    names = [name for name in tensor_names(path) if not STATE.fullmatch(name)]
    keys = {key: match.groups() for key in names if (match := LAYERS.fullmatch(key))}
    if GRAPH not in names or not keys:
        raise ValueError(
            "The checkpoint holds no layers of a Keras model; one with Google's names is read by "
            f"load_google_weights. Received: path={str(path)!r}"
        )
    values = read_tensors(path, names)
    layer_names = _layer_names(values.pop(GRAPH).tobytes(), keys)
    layers = {}
    for key, (number, variable) in sorted(keys.items(), key=_position):
        layers.setdefault(layer_names[number], {})[variable] = values.pop(key)
    for key, value in values.items():  # of no layer
        owner, _, variable = key.partition("/")
        layers.setdefault(owner, {})[variable] = value
    return layers


def _position(item):
    number, variable = item[1]
    return [int(digits) for digits in re.findall(r"\d+", number)], variable


def _layer_names(graph, keys):
    """The name of each numbered layer: a variable was called "layer/..." when it was made."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    try:
        nodes = TrackableObjectGraph.FromString(graph).nodes
    except Exception as error:  # protobuf's own, which has no other name in TensorFlow
        raise ValueError(f"The checkpoint's graph of layers is damaged: {error}") from error
    names = {}
    for node in nodes:
        for attribute in node.attributes:
            if attribute.checkpoint_key in keys:
                number = keys[attribute.checkpoint_key][0]
                names[number] = attribute.full_name.partition("/")[0]
    nameless = sorted({number for number, _ in keys.values()} - {n for n in names if names[n]})
    if nameless or len(set(names.values())) < len(names):
        raise ValueError(
            "The checkpoint does not name its layers, or some alike; load it with tf.keras and save "
            "it with model.save_weights('name.h5'). "
            f"Received: layers={np.array(nameless or sorted(names.values())).tolist()}"
        )
    return names
