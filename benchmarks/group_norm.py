"""Which form of GroupNorm and swish is the quickest on TensorFlow?

    python group_norm.py

`layers.GroupNorm` takes means, then the squares of what differs from them; beside it the same from
raw moments, from products with ones, by TensorFlow's fused batch norm of the transposed input, and
Keras' own layer. Each before a swish, as in the U-Net, forwards and with gradients.
"""

import argparse

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from timing import compilers, median_times, print_table

from keras_ext.layers import GroupNorm

EPSILON = 1e-5
GROUPS = 8


def raw_moments(x):
    """E x^2 - (E x)^2: one pass for each mean, one for gain and one for shift."""
    _, height, width, channels = x.shape
    sums = [ops.sum(each, axis=(1, 2)) for each in (x, ops.square(x))]
    gain, shift = _gain_and_shift(*sums, height * width, channels)
    return x * gain + shift


def products_with_ones(x):
    """The sums as products of matrices, which have kernels of their own."""
    _, height, width, channels = x.shape
    rows = ops.reshape(x, (-1, height * width, channels))
    ones = ops.ones((1, height * width), x.dtype)
    sums = [ops.matmul(ones, each)[:, 0] for each in (rows, ops.square(rows))]
    gain, shift = _gain_and_shift(*sums, height * width, channels)
    return x * gain + shift


def _gain_and_shift(total, squares, positions, channels):
    size = channels // GROUPS

    def mean(sums):
        means = ops.mean(ops.reshape(sums, (-1, GROUPS, size)), -1, keepdims=True) / positions
        return ops.reshape(
            ops.broadcast_to(means, (ops.shape(sums)[0], GROUPS, size)), (-1, 1, 1, channels)
        )

    centre = mean(total)
    gain = ops.rsqrt(mean(squares) - ops.square(centre) + EPSILON)
    return gain, -centre * gain


def fused_batch_norm(x):
    """Samples and groups as the channels of a batch norm: one kernel between two transpositions."""
    batch, height, width, channels = x.shape
    size = channels // GROUPS
    groups = tf.reshape(x, (batch, height * width, GROUPS, size))
    groups = tf.reshape(
        tf.transpose(groups, (1, 3, 0, 2)), (1, height * width, size, batch * GROUPS)
    )
    ones = tf.ones(batch * GROUPS)
    normed, *_ = tf.compat.v1.nn.fused_batch_norm(groups, ones, 0.0 * ones, epsilon=EPSILON)
    normed = tf.reshape(normed, (height * width, size, batch, GROUPS))
    return tf.reshape(tf.transpose(normed, (2, 0, 3, 1)), (batch, height, width, channels))


def main(words=None):
    """Times all forms on all shapes, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=["64x8x8x32", "64x4x4x64", "16x32x32x32"])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--inner", type=int, default=20, help="calls in one measurement")
    arguments = parser.parse_args(words)
    rows = []
    for shape in arguments.shapes:
        x = np.random.default_rng(0).normal(size=[int(n) for n in shape.split("x")])
        x = tf.constant(x, "float32")
        forms = {
            "layers.GroupNorm": GroupNorm(GROUPS),
            "raw moments": raw_moments,
            "products with ones": products_with_ones,
            "fused batch norm": fused_batch_norm,
            "keras.layers": keras.layers.GroupNormalization(GROUPS, epsilon=EPSILON),
        }
        expected = forms["layers.GroupNorm"](x)
        for form in forms.values():
            np.testing.assert_allclose(form(x), expected, atol=1e-3)
        for direction, make in (("forwards", forwards), ("with gradients", with_gradients)):
            sides = {
                (name, compiler): compile_(make(form, arguments.inner))
                for compiler, compile_ in compilers().items()
                if compiler != "eager"
                for name, form in forms.items()
            }
            seconds = median_times(
                {key: lambda side=side, x=x: side(x) for key, side in sides.items()},
                arguments.repeats,
            )
            reference = seconds["layers.GroupNorm", "graph"]
            rows += [
                [
                    shape,
                    direction,
                    *key,
                    f"{1e3 * each / arguments.inner:.3f}",
                    f"{reference / each:.2f}",
                ]
                for key, each in seconds.items()
            ]
    headers = ["shape", "", "form", "compiler", "ms", "times layers.GroupNorm in graph mode"]
    print_table("GroupNorm and swish", headers, rows, arguments.repeats)


def forwards(form, inner):
    """The sum of some calls, each of another input."""

    def run(x):
        return ops.sum(sum(ops.silu(form(x + float(i)))[0, 0] for i in range(inner)))

    return run


def with_gradients(form, inner):
    """The gradients of some calls."""

    def run(x):
        total = 0.0
        for i in range(inner):
            with tf.GradientTape() as tape:
                shifted = x + float(i)
                tape.watch(shifted)
                value = tf.reduce_sum(tf.square(ops.silu(form(shifted))))
            total += tape.gradient(value, shifted)[0, 0, 0, 0]
        return total

    return run


if __name__ == "__main__":
    main()
