"""Is Keras' fused attention faster than four products and a softmax of our own?

Attention from queries, keys and values, with a padding mask, forward and with the gradient:
`keras.ops.dot_product_attention` with the mask or with a bias, beside matrix products of transposed
heads, an added bias and a softmax, which is what `MultiHeadSelfAttention` does on TensorFlow.
Run: python benchmarks/fused_attention.py
"""

import argparse

import numpy as np
import tensorflow as tf
from keras import ops
from timing import median_times, print_table

from keras_ext.ops import MASKED


def own(query, key, value, mask):
    """Products of transposed heads, as in `MultiHeadSelfAttention`."""
    query, key, value = (ops.transpose(x, (0, 2, 1, 3)) for x in (query, key, value))
    scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) + mask_bias(mask)
    return ops.transpose(ops.matmul(ops.softmax(scores), value), (0, 2, 1, 3))


def with_mask(query, key, value, mask):
    """Keras' function, the mask as a mask."""
    return ops.dot_product_attention(query, key, value, mask=mask, scale=1.0)


def with_bias(query, key, value, mask):
    """Keras' function, the mask as a bias."""
    return ops.dot_product_attention(query, key, value, bias=mask_bias(mask), scale=1.0)


def mask_bias(mask):
    """What masks scores by being added."""
    return ops.where(mask, 0.0, MASKED)


SIDES = {"own": own, "Keras, mask": with_mask, "Keras, bias": with_bias}


def compiled(side, arrays, mask):
    """A side as functions without arguments: its output, and its gradients."""

    @tf.function
    def forward():
        return side(*arrays, mask)

    @tf.function
    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            loss = tf.reduce_sum(tf.square(side(*arrays, mask)))
        return tape.gradient(loss, arrays)

    return forward, gradient


def main(words=None):
    """Times and prints.

    Args:
        words: list of arguments; None: those of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["16x128x12x32", "4x512x12x64"])
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args(words)
    rows = []
    for size in arguments.sizes:
        batch, length, heads, channels = map(int, size.split("x"))
        rng = np.random.default_rng(0)
        shape = (3, batch, length, heads, channels)
        arrays = [tf.constant(x) for x in rng.normal(size=shape).astype("float32")]
        arrays[0] = arrays[0] * channels**-0.5
        lengths = rng.integers(length // 2, length + 1, (batch, 1))
        mask = tf.constant(np.arange(length) < lengths)[:, None, None]
        functions = {name: compiled(side, arrays, mask) for name, side in SIDES.items()}
        expected = functions["own"][0]()
        for name, (forward, _) in functions.items():
            np.testing.assert_allclose(forward(), expected, atol=1e-5, err_msg=name)
        for kind, title in enumerate(("forward", "with the gradient")):
            sides = {name: both[kind] for name, both in functions.items()}
            times = median_times(sides, arguments.repeats)
            for name, seconds in times.items():
                ratio = seconds / times["own"]
                rows.append([size, title, name, f"{1e3 * seconds:.1f}", f"{ratio:.2f}"])
    headers = ["b x n x heads x head_size", "", "side", "ms", "times own"]
    print_table("Attention with a padding mask, float32, graph", headers, rows, arguments.repeats)


if __name__ == "__main__":
    main()
