"""What an encoder's output at a place depends on: found by trying."""

import keras
import numpy as np
from keras import ops

LENGTH = 8
"""Tokens that are tried where an encoder leaves the length open."""


def encoder_arguments(encoder, ids, given=None, pad_id=0):
    """What an encoder is called with: the ids alone, or a dict of the inputs that it has.

    Args:
        encoder: functional `keras.Model`.
        ids: (b, n) int32.
        given: dict of the inputs that are known, or None. What lacks is made: segments 0, and the
            mask.
        pad_id: int, the id that is padding where no mask is given; None: there is none.

    Returns:
        `ids`, or a dict, and a mask of the tokens (b, n) bool.

    Raises:
        ValueError: if the encoder has an input that is neither given nor made.
    """
    given = given or {}
    mask = given.get("padding_mask")
    if mask is None:
        mask = ops.ones_like(ids, "bool") if pad_id is None else ops.not_equal(ids, pad_id)
    mask = ops.cast(mask, "bool")
    expected = encoder.input
    if not isinstance(expected, dict):
        return ids, mask
    known = {"segment_ids": ops.zeros_like(ids), **given, "padding_mask": mask, "token_ids": ids}
    if not expected.keys() <= known.keys():
        raise ValueError(
            "Expected the inputs of the encoder; segment_ids and padding_mask can be left out. "
            f"Received: {sorted(given)} for an encoder with {sorted(expected)}"
        )
    # KerasHub's padding masks are integers.
    return {name: ops.cast(known[name], expected[name].dtype) for name in expected}, mask


def hidden_states(output):
    """The vectors (b, n, d) among the outputs of an encoder."""
    return output["sequence_output"] if isinstance(output, dict) else output


def sees_later(encoder, vocabulary_size):
    """Whether the output of an encoder at a place changes with the tokens after it.

        max |f(x)_i - f(y)_i| / max |f(x)|  over the i before j,  x and y equal before j

    for random x and y of which j is the middle. The weights are for the time moved a little from
    where they are: a branch that begins as zero would hide what it will see.

    Args:
        encoder: functional `keras.Model`, from token ids to (b, n, d).
        vocabulary_size: int.

    Returns:
        bool.

    Raises:
        ValueError: for an encoder of fewer than 2 tokens, where none is before another.
    """
    rng, shape = np.random.default_rng(0), token_shape(encoder)
    length = LENGTH if shape[1] is None else shape[1]
    if length < 2:
        raise ValueError(
            "Expected an encoder of at least 2 tokens: of fewer, none has another before it. "
            f"Received: encoder={encoder.name} of token ids {shape}"
        )
    ids = np.repeat(rng.integers(vocabulary_size, size=(1, length)), 2, axis=0)
    middle = length // 2
    ids[1, middle:] = (ids[0, middle:] + 1) % vocabulary_size
    ids = ops.convert_to_tensor(ids.astype("int32"))
    place = ops.broadcast_to(ops.arange(length, dtype="int32"), (2, length))
    arguments, _ = encoder_arguments(encoder, ids, {"position_ids": place}, pad_id=None)
    moved = [
        (v, v.value + ops.cast(0.02 * rng.standard_normal(v.shape, "float32"), v.dtype))
        for v in encoder.trainable_variables
    ]
    with keras.StatelessScope(moved):
        x = hidden_states(encoder(arguments, training=False))
    x = ops.convert_to_numpy(ops.cast(x, "float32"))
    # What is hidden has the weight 0 exactly, in half precision, too.
    return bool(np.abs(x[0, :middle] - x[1, :middle]).max() > 1e-6 * np.abs(x).max())


def token_shape(encoder):
    """The shape of the token ids that an encoder takes, (None, n or None).

    Raises:
        ValueError: for what is no functional model of token ids.
    """
    expected = getattr(encoder, "input", None)
    tokens = expected.get("token_ids") if isinstance(expected, dict) else expected
    if not isinstance(encoder, keras.Model) or len(getattr(tokens, "shape", ())) != 2:
        raise ValueError(
            "Expected a functional keras.Model of token ids (b, n): one input, or a dict with "
            f"token_ids. Received: encoder={encoder!r}"
        )
    output = getattr(hidden_states(encoder.output), "shape", ())
    if len(output) != 3:
        raise ValueError(
            "Expected an encoder that gives one vector for each token, (b, n, d). "
            f"Received: {encoder!r} with an output of shape {tuple(output)}"
        )
    return tuple(tokens.shape)
