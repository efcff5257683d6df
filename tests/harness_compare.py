"""Value and gradient of a row, and how near two of them are."""

import keras
import numpy as np
from harness_backend import value_and_gradients
from keras import ops, tree


def run(row, subject, weights, inputs):
    """The outputs, and the gradients of their sum with random signs."""
    flat = tree.flatten(inputs)
    floating = [keras.backend.is_float_dtype(x.dtype) for x in flat]

    def objective(tensors):
        count = len(tensors) - sum(floating)
        weights, moving = tensors[:count], iter(tensors[count:])
        mixed = [next(moving) if f else x for x, f in zip(flat, floating, strict=True)]
        outputs = row.call(subject, weights, tree.pack_sequence_as(inputs, mixed))
        rng, total = np.random.default_rng(2), 0.0
        for output in tree.flatten(outputs):
            output = ops.cast(output, "float32")
            signs = rng.choice([-1.0, 1.0], output.shape).astype("float32")
            total += ops.sum(ops.where(output <= -1e29, 0.0, output) * signs)
        return total, outputs

    if not row.differentiable:
        return row.call(subject, weights, inputs), []
    moving = [x for x, f in zip(flat, floating, strict=True) if f]
    return value_and_gradients(objective, [*weights, *moving])


def compare(row, what, actual, expected, tolerance):
    """Raises unless two results of `run` are finite and agree."""
    for kind, left, right in zip(("value", "gradient"), actual, expected, strict=True):
        left = [to_numpy(x) for x in tree.flatten(left)]
        right = [to_numpy(x) for x in tree.flatten(right)]
        # Some gradients are 0 up to rounding, such as that of the bias of a key.
        floor = 0.1 * max(np.abs(x).max() for x in right) if kind == "gradient" and right else 0.0
        for x, y in zip(left, right, strict=True):
            assert np.isfinite(x).all(), f"{row}: the {kind} under {what} is not finite"
            assert np.isfinite(y).all(), f"{row}: the {kind} in float32 is not finite"
            difference = relative_difference(x, y, floor)
            assert difference <= tolerance, (
                f"{row}: the {kind} under {what} is off by {difference:.1e}, more than {tolerance}"
            )


def relative_difference(left, right, floor=0.0):
    """max|left - right| / max|right|; masked scores must be masked on both sides."""
    masked = right <= -1e29
    if not np.array_equal(left <= -1e29, masked):
        return np.inf
    left, right = np.where(masked, 0, left), np.where(masked, 0, right)
    return np.abs(left - right).max() / max(np.abs(right).max(), floor, 1e-30)


def to_numpy(x):
    """A tensor as an array; half precision as float32, which holds all its numbers."""
    if isinstance(x, np.ndarray):
        return x
    dtype = keras.backend.standardize_dtype(x.dtype)
    return np.array(ops.cast(x, "float32") if "float" in dtype else x)
