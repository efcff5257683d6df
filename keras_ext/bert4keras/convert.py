"""Whole models of bert4keras, as Keras 3 saves and loads them."""

import os
from typing import NamedTuple

import keras

from keras_ext.bert4keras.convert_calls import Flow
from keras_ext.bert4keras.convert_layers import TRANSLATORS
from keras_ext.bert4keras.legacy_config import lost_settings, policy
from keras_ext.bert4keras.legacy_graph import MODELS, holds_ids, read_graph
from keras_ext.bert4keras.legacy_hdf5 import read_legacy_hdf5
from keras_ext.bert4keras.weight_order import layers_with_weights
from keras_ext.bert4keras.weights import fill_layers
from keras_ext.checkpoints.config_sizes import check_claims
from keras_ext.files.replaced_files import replaced_file


class ConversionReport(NamedTuple):
    """What became of a model: tuples of names of `layers`, and of what was `dropped`.

    Example:

    >>> ConversionReport(layers=("Embedding-Token",), dropped=("loss",)).dropped
    ('loss',)
    """

    layers: tuple
    dropped: tuple


def convert(source, target, name=None):
    """Turns a whole model that bert4keras saved by `model.save("name.h5")` into a `.keras` file.

    The converted model gives the same output; `import keras_ext` and `keras.models.load_model`
    open it anywhere. Its layers have the names of the old ones, its inputs come as a list in the
    old order, and ids as int32. Tokens are masked as bert4keras masks them: those with an id
    above 0, and the first, where the embedding has `mask_zero`. Models inside the model are laid
    open. The model is not compiled: loss, optimizer and its state are dropped, and the initializers
    too. No code in the file is run;
    bert4keras' own Lambdas (`Pooler`, `Attention-LM-Mask`, `Attention-UniLM-Mask`) are known by their
    names.

    Layers are those of bert4keras 0.11.5; before, "softmax_plus" in a `GatedAttentionUnit` had
    another scale for fewer than 16 tokens.

    A model with a layer that has no counterpart, such as a Lambda of the user's own, can be built
    anew with Keras 3 and filled by `load_bert4keras_weights`.

    Args:
        source: HDF5 file of a functional model of Keras 2, of any name.
        target: the file to write; it ends in `.keras`. Replaced if it exists, once all is checked.
            Folders are made.
        name: name of the model. None: the old one.

    Returns:
        `ConversionReport`.

    Raises:
        ValueError: if the file is of another kind (saying what to do), is cut off or holds weights
            only; naming all layers that have no counterpart; if the weights do not fit.

    Example:

    ```python
    convert("best_model.h5", "best_model.keras")
    model = keras.models.load_model("best_model.keras")
    ```
    """
    if not str(target).endswith(".keras"):
        raise ValueError(f"Keras 3 names its models .keras. Received: target={str(target)!r}")
    file = read_legacy_hdf5(source)
    if file.config is None:
        raise ValueError(
            "The file holds weights but no architecture; build the model and use "
            f"load_bert4keras_weights. Received: source={str(source)!r}"
        )
    if file.config.get("class_name") not in MODELS:
        raise ValueError(
            "Expected a functional model, as bert4keras builds it. "
            f"Received: class_name={file.config.get('class_name')!r}, source={str(source)!r}"
        )
    check_claims(file.config, os.path.getsize(source), source)
    graph = read_graph(file.config.get("config"))
    model, paths = _model(graph, name or graph.name)
    inner = {path[-1] for path in paths if len(path) > 1} & {*layers_with_weights(model)}
    fill_layers(model, file.layers, mapping={layer: layer for layer in inner})
    with replaced_file(target) as new:
        model.save(new)
    dropped = [key for key, value in file.training.items() if value]
    names = (*graph.inputs, *(path[-1] for path in paths))
    return ConversionReport(names, (*dropped, *_lost(graph)))


def _model(graph, name):
    """The model in today's layers, with weights of no meaning, and the paths of these layers."""
    inputs = {key: _input(graph, key) for key in graph.inputs}
    parts, faults = {}, {}
    flows = _run(graph, {key: Flow(x) for key, x in inputs.items()}, parts, faults)
    if faults:
        raise ValueError(
            "Layers without a counterpart in keras_ext; build the model with Keras 3 and use "
            "load_bert4keras_weights for the others.\n  "
            + "\n  ".join(f"{layer}: {fault}" for layer, fault in faults.items())
            + f"\nReceived: model={graph.name}"
        )
    inputs, outputs = list(inputs.values()), [flow.tensor for flow in flows]
    model = keras.Model(
        inputs if len(inputs) > 1 else inputs[0],
        outputs if len(outputs) > 1 else outputs[0],
        name=name,
    )
    return model, list(parts)


def _input(graph, name):
    config = graph.layers[name][1]
    if not config.get("batch_input_shape"):
        raise ValueError(f"An input of the model has no shape. Received: layer={name!r}")
    batch, *shape = config["batch_input_shape"]
    dtype = "int32" if holds_ids(graph, name) else policy(config.get("dtype")).compute_dtype
    return keras.Input(shape, batch_size=batch, dtype=dtype, name=name)


def _run(graph, inputs, parts, faults, path=()):
    """Calls the layers of a graph.

    Args:
        graph: `Graph`.
        inputs: dict from names of input layers to `Flow`s.
        parts: dict of the layers made so far; filled.
        faults: dict of layers without a counterpart; filled. What comes behind them is None.
        path: names of the models around this one.

    Returns:
        List of `Flow`s or None.
    """
    flows = {(name, 0): flow for name, flow in inputs.items()}
    for node in graph.nodes:
        kind, config = graph.layers[node.layer]
        given, key = [flows[source] for source in node.inputs], (*path, node.layer)
        try:
            flow = _call(graph, node, given, parts, faults, key)
        except KeyError as error:
            faults[f"{node.layer} ({kind})"] = f"its config lacks {error}"
            flow = None
        except (TypeError, ValueError) as error:
            faults[f"{node.layer} ({kind})"] = str(error)
            flow = None
        flows[node.layer, node.number] = flow
    return [flows[source] for source in graph.outputs]


def _call(graph, node, given, parts, faults, key):
    kind, config = graph.layers[node.layer]
    if kind in MODELS:
        if node.arguments:
            raise ValueError(f"the call arguments {node.arguments} have no counterpart")
        inner = read_graph(config)
        outputs = _run(inner, dict(zip(inner.inputs, given, strict=True)), parts, faults, key)
        return outputs[0]
    if kind not in TRANSLATORS:
        raise ValueError("it has no counterpart")
    translator = TRANSLATORS[kind]
    if key not in parts:
        nodes = [other for other in graph.nodes if other.layer == node.layer]
        parts[key] = translator.make(config, nodes, graph)
    return None if None in given else translator.call(parts[key], given, node.arguments)


def _lost(graph):
    """What is not carried over, layer by layer."""
    for name, (kind, config) in graph.layers.items():
        if kind in MODELS:
            yield from _lost(read_graph(config))
            continue
        yield from (f"{name}: {setting}" for setting in lost_settings(config))
        if kind == "RelativePositionEmbedding" and config.get("trainable", True):
            yield f"{name}: trainable"
