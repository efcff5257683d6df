"""Calling today's layers as Keras 2 called those of bert4keras, masks and all.

Each function takes what was made for a layer, the list of what goes in (`Flow`) and the dict of the
other arguments, gives a `Flow`, and raises ValueError for what has no counterpart.
"""

from typing import Any, NamedTuple

from keras import ops

from keras_ext.ops.masking import mask_value

SEQUENCE, ROTARY, RELATIVE, VISIBLE = (
    "a sequence",
    "a rotary position embedding",
    "a relative position embedding",
    "an attention mask",
)


class Flow(NamedTuple):
    """What a call gives: Keras 2 passed masks along with tensors, here they are explicit.

    Attributes:
        tensor: symbolic tensor; of rotary position embeddings the positions, or None.
        mask: symbolic (b, n) bool, or None.
        role: what it is.

    Example:

    >>> Flow(keras.Input((3,))).role
    'a sequence'
    """

    tensor: Any
    mask: Any = None
    role: str = SEQUENCE


def _tensors(flows, arguments):
    """The tensors of plain inputs."""
    if arguments:
        raise ValueError(f"the call arguments {arguments} have no counterpart")
    return [_as(SEQUENCE, flow) for flow in flows]


def _as(role, flow):
    if flow.role != role:
        raise ValueError(f"expected {role} as input, found {flow.role}")
    return flow.tensor


def _one(flows, arguments):
    tensors = _tensors(flows, arguments)
    return tensors[0] if len(tensors) == 1 else tensors


def _attached(attach, tensor, mask):
    """A tensor with a mask, for layers that users add and for losses, which ask Keras for it."""
    return Flow(tensor if mask is None else attach([tensor, mask]), mask)


def keep_mask(layer, flows, arguments):
    """Calls a layer whose output has the time axis of its (first) input."""
    return Flow(layer(_one(flows, arguments)), flows[0].mask)


def end_mask(layer, flows, arguments):
    """Calls a layer that pays no heed to a mask, nor hands one on."""
    # Keras 3 warns of a mask that a layer ignores; an operation drops it without a word.
    return Flow(layer(ops.copy(_one(flows, arguments))))


def ignore_mask(parts, flows, arguments):
    """Calls a layer that pays no heed to a mask, but hands it on."""
    layer, attach = parts
    return _attached(attach, end_mask(layer, flows, arguments).tensor, flows[0].mask)


def merge_masks(parts, flows, arguments):
    """Calls a layer that merges its inputs position by position: a token is one in all."""
    layer, attach = parts
    output = layer(_tensors(flows, arguments))
    masks = list({id(flow.mask): flow.mask for flow in flows if flow.mask is not None}.values())
    if not masks:
        return Flow(output)
    if getattr(layer, "axis", -1) not in (-1, len(output.shape) - 1):
        raise ValueError("joining sequences one behind another has no counterpart")
    mask = masks[0]
    for other in masks[1:]:
        mask = ops.logical_and(mask, other)
    if len(masks) == 1 and all(flow.mask is not None for flow in flows):
        return Flow(output, mask)
    # Here Keras 3 would give no mask, or one that is true where any is.
    return _attached(attach, output, mask)


def use_mask(layer, flows, arguments):
    """Calls a layer that reads the mask; one that gives a sequence hands it on."""
    mask = {} if flows[0].mask is None else {"mask": flows[0].mask}
    output = layer(_one(flows, arguments), **mask)
    return Flow(output, flows[0].mask if getattr(layer, "return_sequences", False) else None)


def embed(parts, flows, arguments):
    """Calls an embedding (and its `PaddingMask`, or None), or its tied way back."""
    layer, attach, padding_mask = parts
    arguments = dict(arguments)
    reverse = arguments.pop("mode", "embedding") == "dense"
    x = _one(flows, arguments)
    if reverse:
        return _attached(attach, layer(ops.copy(x), reverse=True), flows[0].mask)
    return _attached(attach, layer(x), padding_mask(x) if padding_mask else None)


def add_positions(layer, flows, arguments):
    """Calls a position embedding; the second input, if any, holds the positions."""
    x, *positions = _tensors(flows, arguments)
    return Flow(layer(x, **({"positions": positions[0]} if positions else {})), flows[0].mask)


def turn(layer, flows, arguments):
    """Hands the positions on to attentions, which turn their queries and keys themselves."""
    _, *positions = _tensors(flows, arguments)
    return Flow(positions[0] if positions else None, None, ROTARY)


def relate(layer, flows, arguments):
    """Calls a relative position embedding, given one sequence twice."""
    query, value = _tensors(flows, arguments)
    if query is not value:
        raise ValueError("relative positions between two sequences have no counterpart")
    return Flow(layer(query), None, RELATIVE)


def mask_or_pool(layer, flows, arguments):
    """Calls an attention mask; None takes the first vector of each sequence."""
    x = _one(flows, {})
    return Flow(x[:, 0]) if layer is None else Flow(layer(x), None, VISIBLE)


def pool_max(layer, flows, arguments):
    """Calls a maximum over the tokens."""
    x, mask = ops.copy(_one(flows, arguments)), flows[0].mask
    if mask is not None:
        x = ops.where(ops.expand_dims(mask, -1), x, mask_value(x.dtype))
    return Flow(layer(x))


def _attention_inputs(flows, arguments, count):
    """What an attention reads beside its `count` sequences: its masks and positions, by name."""
    _tensors([], {k: v for k, v in arguments.items() if k not in ("a_bias", "p_bias")})
    wanted = []
    if arguments.get("a_bias"):
        wanted.append(("attention_mask", VISIBLE))
    if arguments.get("p_bias") == "rotary":
        wanted.append(("positions", ROTARY))
    if arguments.get("p_bias") == "typical_relative":
        wanted.append(("relative_embeddings", RELATIVE))
    rest = flows[count:]
    if len(rest) != len(wanted):
        raise ValueError(f"expected {count + len(wanted)} inputs, found {len(flows)}")
    named = {name: _as(role, flow) for (name, role), flow in zip(wanted, rest, strict=True)}
    named["mask"] = flows[0].mask
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def attend(layer, flows, arguments):
    """Calls a self-attention, given its sequence as query, key and value."""
    if not flows[0].tensor is flows[1].tensor is flows[2].tensor:
        raise ValueError("attention to another sequence has no counterpart")
    x = _as(SEQUENCE, flows[0])
    return Flow(layer(x, **_attention_inputs(flows, arguments, 3)), flows[0].mask)


def gate(layer, flows, arguments):
    """Calls a gated attention unit; the mask of its first sequence is that of the keys."""
    count = 1 if layer.self_attention else 3
    tensors = [_as(SEQUENCE, flow) for flow in flows[:count]]
    x = tensors[0] if layer.self_attention else tensors
    return Flow(layer(x, **_attention_inputs(flows, arguments, count)), flows[0].mask)
