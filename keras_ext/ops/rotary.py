"""Rotary position embedding: a vector is turned by an angle proportional to its position."""

from keras import ops

LAYOUTS = ("interleaved", "half")


def rotary_angles(positions, size, base=10000.0):
    """The angles by which each pair of channels is turned at each position.

        angle[n, i] = positions[n] * base ** (-2 i / size)

    Always float32: float16 cannot represent the position 2049, bfloat16 not even 257.

    Args:
        positions: (n,) or (b, n), integers or floats (fractional positions interpolate).
        size: int, even: number of channels that will be turned.
        base: float, the base of the geometric sequence of frequencies.

    Returns:
        float32 tensor (..., n, size / 2).

    Example:

    >>> import numpy as np
    >>> [[f"{a:.2f}" for a in row] for row in np.array(rotary_angles([0, 1, 3.5], size=4))]
    [['0.00', '0.00'], ['1.00', '0.01'], ['3.50', '0.04']]
    """
    if size < 2 or size % 2:
        raise ValueError(f"Rotary embedding turns channels in pairs. Received: size={size}")
    frequencies = ops.power(base, -2.0 * ops.arange(size // 2, dtype="float32") / size)
    positions = ops.cast(positions, "float32")
    return ops.expand_dims(positions, -1) * frequencies  # (..., n, size / 2)


def apply_rotary(x, positions=None, base=10000.0, layout="interleaved"):
    """Turns each pair of channels of `x` by the angle of its position.

        (x_2i, x_2i+1) -> (x_2i cos - x_2i+1 sin, x_2i+1 cos + x_2i sin)

    so that the product of a query at position m and a key at position n depends on them only
    through m - n. Layout "interleaved" pairs neighbouring channels (RoFormer, bert4keras);
    "half" pairs channel i with channel i + size / 2 (GPT-NeoX, Llama). The two differ by a fixed
    permutation of the channels.

    Args:
        x: (b, n, size) or (b, n, heads, size); `size` is even.
        positions: (n,) or (b, n), integers or floats. Defaults to 0, 1, ..., n - 1.
        base: float, the base of the geometric sequence of frequencies.
        layout: "interleaved" or "half".

    Returns:
        Tensor of the shape and dtype of `x`.

    Raises:
        ValueError: for an odd `size`, an unknown layout, or another rank.

    Example:

    >>> import numpy as np
    >>> x = np.ones((1, 3, 4), "float32")
    >>> turned = np.array(apply_rotary(x))
    >>> np.allclose(np.linalg.norm(turned, axis=-1), 2.0)  # lengths stay
    True

    Source: Jianlin Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding,
    2021, https://arxiv.org/abs/2104.09864
    """
    if layout not in LAYOUTS:
        raise ValueError(f"Unknown rotary layout, expected one of {LAYOUTS}. Received: {layout=}")
    x = ops.convert_to_tensor(x)
    if len(x.shape) not in (3, 4):
        raise ValueError(
            "Rotary embedding expects (batch, length, size) or (batch, length, heads, size). "
            f"Received: x.shape={tuple(x.shape)}"
        )
    if positions is None:
        positions = ops.arange(ops.shape(x)[1], dtype="float32")
    angles = rotary_angles(positions, x.shape[-1], base)
    if len(x.shape) == 4:
        angles = ops.expand_dims(angles, -2)  # (..., n, 1, size / 2)
    cos, sin = ops.cast(ops.cos(angles), x.dtype), ops.cast(ops.sin(angles), x.dtype)
    # x cos + partner sin over whole vectors: taking the pairs apart and together costs twice that.
    if layout == "interleaved":
        pairs = ops.reshape(x, (*ops.shape(x)[:-1], x.shape[-1] // 2, 2))
        partner = ops.reshape(ops.flip(pairs, axis=-1), ops.shape(x))
        cos = ops.repeat(cos, 2, axis=-1)
        sin = ops.stack((-sin, sin), axis=-1)
        sin = ops.reshape(sin, ops.shape(cos))
    else:
        first, second = ops.split(x, 2, axis=-1)
        partner = ops.concatenate((second, first), axis=-1)
        cos = ops.concatenate((cos, cos), axis=-1)
        sin = ops.concatenate((-sin, sin), axis=-1)
    return x * cos + partner * sin
