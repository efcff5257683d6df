"""Draws the inputs: rows that show each kind of padding."""

import numpy as np


def draw_inputs(model, rng, vocabulary, segments=2, positions=0, length=11, unilm=False):
    """Random inputs for the input layers that a model has.

    The rows are: no padding; zeros at the end; a zero in the middle; a zero at the beginning, which
    bert4keras does not mask, and zeros at the end.

    Args:
        model: A Keras model.
        rng: NumPy generator.
        vocabulary: Token ids are below this number.
        segments: Segment ids are below this number.
        positions: Position ids are below this number.
        length: Tokens a row.
        unilm: Whether the segments of a row are 0...0 1...1, then 0 for padding.

    Returns:
        dict of int32 arrays (4, length) `token_ids`, `segment_ids`, `position_ids`, in the order of
        the inputs of the model.
    """
    token_ids = rng.integers(1, vocabulary, (4, length))
    token_ids[1, length - 4 :] = 0
    token_ids[2, length // 2] = 0
    token_ids[3, 0] = token_ids[3, length - 2 :] = 0
    arrays = {"token_ids": token_ids}
    if "Input-Segment" in model.input_names:
        arrays["segment_ids"] = rng.integers(0, segments, (4, length))
        if unilm:
            first = np.array([[length // 2], [length // 3], [length - 3], [0]])
            arrays["segment_ids"] = (np.arange(length) >= first) & (token_ids > 0)
    if "Input-Position" in model.input_names:
        arrays["position_ids"] = rng.integers(0, positions, (4, length))
    return {name: array.astype("int32") for name, array in arrays.items()}
