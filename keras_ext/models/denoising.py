"""The parts that the networks of diffusion have in common."""

import keras

from keras_ext.layers.time_embedding import TimeEmbedding
from keras_ext.ops.settings import number, whole


def denoiser_inputs(input_shape, num_classes=None):
    """The inputs of a denoiser, by name.

    Args:
        input_shape: tuple of ints, the shape of one sample.
        num_classes: int, or None: there is no input `label`.

    Returns:
        Dict of `keras.Input`s: `x` (b, *input_shape) float32, `t` (b,) float32 in [0, 1], `label`
        (b,) int32.
    """
    inputs = {
        "x": keras.Input(input_shape, dtype="float32", name="x"),
        # In float32 even where the network computes in bfloat16, which rounds 0.999 to 1.
        "t": keras.Input((), dtype="float32", name="t"),
    }
    if num_classes is not None:
        inputs["label"] = keras.Input((), dtype="int32", name="label")
    return inputs


def embed_condition(inputs, dim, num_classes):
    """What the blocks are told of time and class, in float32 whatever the policy of the network.

        condition = swish(W_2 swish(W_1 features(t)) + class embedding)

    Args:
        inputs: dict of `denoiser_inputs`.
        dim: int, even: width of the features of time, and of the output.
        num_classes: int, or None. The table has a row more, that of no class.

    Returns:
        (b, dim) float32.
    """
    x = TimeEmbedding(dim, dtype="float32", name="Time-Features")(inputs["t"])
    x = keras.layers.Dense(dim, activation="swish", dtype="float32", name="Time-Dense")(x)
    x = keras.layers.Dense(dim, dtype="float32", name="Time-Output")(x)
    if num_classes is not None:
        table = keras.layers.Embedding(
            num_classes + 1, dim, dtype="float32", name="Label-Embedding"
        )
        x = keras.layers.Add(dtype="float32", name="Label-Add")([x, table(inputs["label"])])
    return keras.layers.Activation("swish", dtype="float32", name="Condition")(x)


def check_classes(num_classes):
    """`num_classes` as an int of at least 1, or None."""
    return None if num_classes is None else whole("num_classes", num_classes)


def check_dropout(dropout):
    """`dropout` as a float in [0, 1)."""
    if not 0.0 <= number("dropout", dropout) < 1.0:
        raise ValueError(f"Expected a dropout in [0, 1). Received: {dropout=}")
    return float(dropout)
