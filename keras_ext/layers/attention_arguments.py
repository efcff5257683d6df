"""What the attention layers check and store alike."""

import keras

from keras_ext.ops.attention_normalization import NORMALIZATIONS
from keras_ext.ops.attention_scale import LogN, get_attention_scale

SCORE_SCALES = ("bert4keras", "paper")


def check_rotary(rope, size, rope_window=None, rope_slope=0.0):
    """Raises ValueError unless vectors of `size` channels can be turned so."""
    if rope and size % 2:
        raise ValueError(
            "Rotary embedding turns channels in pairs, key_size must be even. "
            f"Received: key_size={size}"
        )
    if rope_window is None:
        if rope_slope:
            raise ValueError(f"rope_slope needs a rope_window. Received: {rope_slope=}")
        return
    if not rope:
        raise ValueError(f"rope_window needs rope=True. Received: {rope=}, {rope_window=}")
    if not rope_window > 0 or not 0 <= rope_slope < 1:
        raise ValueError(
            "Expected a rope_window above 0 and a rope_slope in [0, 1). "
            f"Received: {rope_window=}, {rope_slope=}"
        )


def check_turned(rope, positions):
    """Raises ValueError for positions that nothing is turned by."""
    if positions is not None and not rope:
        raise ValueError(
            f"Positions are what `rope` turns by. Expected rope=True with them. Received: {rope=}"
        )


def check_positions(positions, query_shape, key_shape):
    """Raises ValueError if one list of positions cannot serve queries and keys."""
    lengths = (query_shape[1], key_shape[1])
    if positions is not None and None not in lengths and lengths[0] != lengths[1]:
        raise ValueError(
            "Positions are those of queries and keys, which must be as many then. "
            f"Received: {lengths[0]} queries, {lengths[1]} keys"
        )


def restored_scale(attention_scale):
    """The argument `attention_scale`, from its config where it is one."""
    if isinstance(attention_scale, dict):
        return keras.saving.deserialize_keras_object(attention_scale)
    return attention_scale


def scale_config(attention_scale):
    """What `restored_scale` turns into `attention_scale` again."""
    if callable(attention_scale):
        return keras.saving.serialize_keras_object(attention_scale)
    return attention_scale


def check_gated_attention(layer):
    """Raises ValueError unless the arguments of a `GatedAttentionUnit` go together."""
    units, key_size, scale = layer.units, layer.key_size, layer.attention_scale
    normalization, length_norm = layer.normalization, layer.length_norm
    score_scale = layer.score_scale
    if units < 1 or key_size < 1:
        raise ValueError(f"Sizes must be positive. Received: {units=}, {key_size=}")
    check_rotary(layer.rope, key_size, layer.rope_window, layer.rope_slope)
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"Unknown normalization, expected one of {NORMALIZATIONS}. Received: {normalization=}"
        )
    if score_scale not in SCORE_SCALES:
        raise ValueError(
            f"Unknown score_scale, expected one of {SCORE_SCALES}. Received: {score_scale=}"
        )
    if layer.causal and not layer.self_attention:
        raise ValueError(
            "Queries and keys of two sequences have no common order. "
            "Received: causal=True, self_attention=False"
        )
    if length_norm is not None and not length_norm > 0:
        raise ValueError(f"length_norm must be above 0. Received: {length_norm=}")
    if normalization != "squared_relu" and (length_norm or score_scale != "bert4keras"):
        raise ValueError(
            "length_norm and score_scale are options of normalization='squared_relu'. "
            f"Received: {normalization=}, {length_norm=}, {score_scale=}"
        )
    if score_scale == "paper" and scale is not True:
        raise ValueError(
            f"score_scale='paper' takes the place of attention_scale. Received: {scale=}"
        )
    if isinstance(get_attention_scale(scale), LogN) and normalization == "softmax_plus":
        raise ValueError(f"'softmax_plus' has a factor log n of its own. Received: {scale=}")
