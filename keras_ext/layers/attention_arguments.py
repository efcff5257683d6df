"""What the attention layers check and store alike."""

import keras


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
