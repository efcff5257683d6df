import re
from collections import Counter
from itertools import dropwhile

import keras


def layerwise_decay(model, decay):
    """The rules of a learning rate that falls from the last block of a model to the embeddings.

    The last of L blocks has the multiplier 1, the one before it `decay`, the first
    `decay ** (L - 1)`, and the embeddings `decay ** L`.

    What a block is, is read from the names of the layers, in the order of `model.layers`, models
    inside the model unfolded. Layers whose names share the part up to the first hyphen, and the
    number behind it, belong together: "Transformer-0-FeedForward" and
    "Transformer-0-FeedForward-Norm" to "Transformer-0". Any other layer is a part by itself. The
    blocks are the parts of that name, numbers aside, which occurs most often after leading ones
    with "embedding" in them: "Transformer" here, "transformer_layer" in KerasHub. What comes
    before the first block are the embeddings, what comes after the last one has the multiplier 1,
    too, and what stands between two belongs to the earlier one. If no name occurs twice, every
    part is a block after the embeddings. Layers of the same name, as those of two encoders side
    by side, have the same multiplier.

    Args:
        model: a built `keras.Model`: functional, Sequential, or a subclass whose layers are in
            order.
        decay: float in (0, 1].

    Returns:
        A list of `[pattern, multiplier]` for `ParameterwiseLR`, one for each multiplier. Layers
        without trainable weights are left out: freeze before you call it.

    Raises:
        ValueError: if `decay` is out of its range, the model has no trainable weights, or the name
            of a layer is also that of a layer inside another, so that paths do not tell them apart.

    Example:

    >>> import keras_ext
    >>> encoder = keras_ext.models.BertEncoder(
    ...     vocabulary_size=10, num_layers=2, num_heads=1, hidden_dim=4, intermediate_dim=4
    ... )
    >>> rules = keras_ext.optimizers.layerwise_decay(encoder, 0.5)
    >>> [multiplier for _, multiplier in rules]
    [0.25, 0.5, 1.0]
    >>> optimizer = keras_ext.optimizers.ParameterwiseLR(keras.optimizers.AdamW(5e-5), rules)

    Reference:
        Jeremy Howard, Sebastian Ruder, Universal Language Model Fine-tuning for Text
        Classification, 2018, https://arxiv.org/abs/1801.06146
    """
    if not 0 < decay <= 1:
        raise ValueError(f"Expected decay in (0, 1]. Received: {decay=}")
    layers = [layer for layer in _unfolded(model) if layer.variables]
    depths = _depths([_part(layer.name) for layer in layers])
    trainable = [pair for pair in zip(layers, depths, strict=True) if pair[0].trainable_variables]
    if not trainable:
        raise ValueError(f"Expected a built model with trainable weights. Received: {model=}")
    multipliers = [decay ** (max(depths) - depth) for depth in range(max(depths) + 1)]
    names, owners = {}, {}
    for layer, depth in trainable:
        names.setdefault(depth, {})[re.escape(layer.name)] = None
        for variable in layer.trainable_variables:
            owners.setdefault(variable.path, multipliers[depth])  # the first, if it is shared
    # Not from the beginning of a path: a model that was loaded may have lost its own name there.
    rules = [[f"(^|/)({'|'.join(names[d])})/", multipliers[d]] for d in sorted(names)]
    _check_paths(rules, owners)
    return rules


def _unfolded(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _unfolded(layer)
        else:
            yield layer


def _part(name):
    """The name of the part of the model to which a layer belongs."""
    return re.match(r"[^-]*(-\d+(?=-|$))?", name)[0]


def _stem(part):
    """The name of a part without its number."""
    return re.sub(r"[-_]\d+$", "", part)


def _depths(parts):
    """How deep each layer lies: 0 for embeddings, else the number of its block."""
    parts_once = dict.fromkeys(parts)
    rest = list(dropwhile(lambda part: "embedding" in part.lower(), parts_once))
    stems = Counter(map(_stem, rest))
    often = [part for part in rest if stems[_stem(part)] == max(stems.values()) > 1]
    blocks = [part for part in often if _stem(part) == _stem(often[0])] or rest
    numbers = {block: number for number, block in enumerate(blocks, start=1)}
    depths, depth = {}, 0
    for part in parts_once:
        depth = depths[part] = numbers.get(part, depth)
    return [depths[part] for part in parts]


def _check_paths(rules, expected):
    for path, multiplier in expected.items():
        found = [m for pattern, m in rules if re.search(pattern, path)]
        if found[:1] != [multiplier]:
            raise ValueError(
                "The name of a layer is also that of a layer inside another one. Expected names "
                f"that differ, or rules by hand. Received: {path=} with {rules=}"
            )
