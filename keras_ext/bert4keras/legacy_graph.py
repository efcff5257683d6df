"""The graph of a model of Keras 2, as its config tells it."""

from typing import NamedTuple

MODELS = ("Functional", "Model")


class Node(NamedTuple):
    """One call of a layer.

    Attributes:
        layer: name of the layer.
        number: int, which call of the layer it is.
        inputs: tuple of (name of a layer, number of its call), where the inputs come from.
        arguments: dict, the other arguments of the call.

    Example:

    >>> Node("Embedding-Token", 1, (("MLM-Norm", 0),), {"mode": "dense"}).arguments["mode"]
    'dense'
    """

    layer: str
    number: int
    inputs: tuple
    arguments: dict


class Graph(NamedTuple):
    """A functional model.

    Attributes:
        name: its name.
        layers: dict from names to pairs (class name, config).
        nodes: list of `Node`, each behind those that it reads; none of the input layers.
        inputs: list of names of the input layers.
        outputs: list of (name of a layer, number of its call).

    Example:

    >>> layer = {"class_name": "InputLayer", "config": {}, "name": "ids", "inbound_nodes": []}
    >>> config = {"name": "model", "layers": [layer], "input_layers": [["ids", 0, 0]]}
    >>> read_graph({**config, "output_layers": [["ids", 0, 0]]}).outputs
    [('ids', 0)]
    """

    name: str
    layers: dict
    nodes: list
    inputs: list
    outputs: list


def read_graph(config):
    """The graph of a functional model.

    Args:
        config: dict, the "config" of a model of the class "Functional" or "Model".

    Returns:
        `Graph`.

    Raises:
        ValueError: if the config has another form, or calls layers in ways that it should not.
    """
    try:
        layers = {x["name"]: (x["class_name"], x["config"]) for x in config["layers"]}
        nodes = [
            _node(x["name"], number, node)
            for x in config["layers"]
            # A model inside the model counts its own inputs as its first call.
            for number, node in enumerate(x["inbound_nodes"], x["class_name"] in MODELS)
        ]
        inputs = [_source(entry)[0] for entry in _entries(config["input_layers"])]
        outputs = [_source(entry) for entry in _entries(config["output_layers"])]
        nodes = _sorted(layers, nodes, [*((name, 0) for name in inputs), *outputs])
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(
            "The architecture is not that of a functional model of Keras 2. "
            f"Received: {type(error).__name__} {error}"
        ) from error
    return Graph(config.get("name"), layers, nodes, inputs, outputs)


def _entries(entries):
    """A list of [layer, call, output]; one alone may stand without its list."""
    return [entries] if isinstance(entries[0], str) else entries


def _node(layer, number, entries):
    sources = tuple(_source(entry) for entry in _entries(entries))
    # The arguments stand beside each input again.
    arguments = {}
    for entry in _entries(entries):
        arguments.update(entry[3] if len(entry) > 3 else {})
    return Node(layer, number, sources, {k: v for k, v in arguments.items() if v is not None})


def _source(entry):
    layer, number, output = entry[:3]
    if output:
        raise ValueError(
            "Layers with more than one output have no counterpart. "
            f"Received: output {output} of the layer {layer!r}"
        )
    return layer, number


def _sorted(layers, nodes, ends):
    """The calls, each behind those that it reads; there must be those of the ends, too."""
    known = {(name, 0) for name, (kind, _) in layers.items() if kind == "InputLayer"}
    waiting, done = nodes, []
    while ready := [node for node in waiting if known.issuperset(node.inputs)]:
        known |= {(node.layer, node.number) for node in ready}
        done += ready
        waiting = [node for node in waiting if (node.layer, node.number) not in known]
    lacking = {*ends, *(source for node in waiting for source in node.inputs)} - known
    if lacking:
        raise ValueError(
            "The architecture reads calls of layers that it does not make. "
            f"Received: (layer, call)={sorted(lacking)}"
        )
    return done


def holds_ids(graph, name):
    """Whether an input holds whole numbers: all that read it look something up in a table.

    Args:
        graph: `Graph`.
        name: name of an input layer.

    Returns:
        Bool.
    """
    readers = [node for node in graph.nodes if (name, 0) in node.inputs]
    return bool(readers) and all(_looks_up(graph, node, name) for node in readers)


def _looks_up(graph, node, name):
    kind, config = graph.layers[node.layer]
    if kind in MODELS:
        inner = read_graph(config)
        slots = zip(node.inputs, inner.inputs, strict=True)
        return all(holds_ids(inner, slot) for source, slot in slots if source == (name, 0))
    if kind == "PositionEmbedding":
        return node.inputs[0] != (name, 0)
    # The Lambdas that read inputs are bert4keras' masks.
    return kind in ("Embedding", "Lambda")
