METHODS = ("linear", "quadratic")
POSITION_BIASES = ("xl", "toeplitz")


def check_vq_arguments(layer):
    """Raises ValueError unless the arguments of a `VQAttention` are possible."""
    heads, key_size, value_size = layer.heads, layer.key_size, layer.value_size
    codes, block_length = layer.codes, layer.block_length
    if min(heads, codes, block_length, value_size or 1) < 1 or key_size < 2 or value_size == 0:
        raise ValueError(
            "Sizes must be positive, and normalised keys have at least 2 channels. Received: "
            f"{heads=}, {key_size=}, {value_size=}, {codes=}, {block_length=}"
        )
    method, position_bias = layer.method, layer.position_bias
    if method not in METHODS:
        raise ValueError(f"Expected a method of {METHODS}. Received: {method=}")
    if position_bias is not None and position_bias not in POSITION_BIASES:
        raise ValueError(
            f"Expected a position_bias of {POSITION_BIASES} or None. Received: {position_bias=}"
        )
    commitment, momentum = layer.commitment, layer.momentum
    if not commitment >= 0 or not 0 <= momentum < 1:
        raise ValueError(
            "Expected a commitment of at least 0 and a momentum in [0, 1). "
            f"Received: {commitment=}, {momentum=}"
        )
